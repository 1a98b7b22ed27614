//! The built-in services, as their clients see them.

use ringgate_load::processes::{Child, Fleet, Spec, this_program};
use ringgate_load::upstream::{Counters, Fault, Time};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use crate::client::{Client, measured_once, timed, until};
use crate::{be_the_tool, fleet, fleet_of, service};

fn tell(fleet: &mut Fleet, fault: &str) {
    fleet.tell(0, fault.parse().expect("a fault")).unwrap_or_else(|error| panic!("{error}"));
}

fn counters(fleet: &mut Fleet) -> Counters {
    fleet.counters(0).unwrap_or_else(|error| panic!("{error}"))
}

fn millis(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

#[test]
fn a_fixed_time_is_met() {
    let fleet = fleet_of(&[service(Time::Fixed(millis(20)), 100)]);
    let mut client = Client::connect(fleet.addresses()[0]);
    // none is early; how late the earliest is, is the service's error and not the machine's, which has others to serve
    let measure = || (0..21).map(|_| client.get("/").expect("an answer").after).min();
    let time = measured_once("20 ms", measure, |least| *least < Some(millis(22)));
    assert!(time >= Some(millis(20)), "{time:?}");
}

#[test]
fn an_mm1_server_takes_its_time_and_has_a_queue() {
    // slow, so that what a busy machine adds is little against it
    let fleet = fleet_of(&[service(Time::MM1 { rate: 50.0 }, 100)]);
    let mut client = Client::connect(fleet.addresses()[0]);
    let mut mean = || (0..100).map(|_| client.get("/").expect("an answer").after).sum::<Duration>() / 100;
    // alone: 20 ms; the mean of 100 is within 30 % of it with 99.7 %
    measured_once("mean of 20 ms", &mut mean, |mean| (millis(14)..millis(28)).contains(mean));
    // ten that come together are served one after the other, though they came on connections of their own
    let mut clients: Vec<_> = (0..10).map(|_| Client::connect(fleet.addresses()[0])).collect();
    let mut burst = || {
        timed(|| {
            clients.iter_mut().for_each(|client| client.send("GET / HTTP/1.1\r\n\r\n").expect("it listens"));
            clients.iter_mut().for_each(|client| assert_eq!(client.next_answer().expect("an answer").status, 200));
        })
    };
    let mut mean = || (0..10).map(|_| burst()).sum::<Duration>() / 10;
    measured_once("mean of ten times 20 ms", &mut mean, |mean| (millis(140)..millis(280)).contains(mean));
}

#[test]
fn requests_of_all_kinds_are_answered() {
    let mut fleet = fleet(1);
    let mut client = Client::connect(fleet.addresses()[0]);
    let answer = client.get("/a").expect("an answer");
    assert_eq!((answer.status, answer.body.len()), (200, 100));
    let answer = client.ask("HEAD /a HTTP/1.1\r\n\r\n").expect("an answer");
    assert!(answer.body.is_empty() && answer.fields.contains("content-length: 100\r\n"), "{}", answer.fields);
    let posts = [
        "POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello",
        "PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    ];
    for post in posts {
        assert_eq!(client.ask(post).expect("an answer").status, 200);
    }
    let large = "x".repeat(3 << 20);
    let large = format!("POST / HTTP/1.1\r\nContent-Length: {}\r\n\r\n{large}", large.len());
    assert_eq!(client.ask(&large).expect("an answer").status, 200);
    // told to go on, and answered after that
    let waits = "POST / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n";
    assert_eq!(client.ask(waits).expect("an interim answer").status, 100);
    assert_eq!(client.ask("hi").expect("an answer").status, 200);
    assert_eq!(client.ask("GET / HTTP/1.1\r\nConnection: close\r\n\r\n").expect("an answer").status, 200);
    assert!(client.has_ended().expect("no reset"));
    let mut client = Client::connect(fleet.addresses()[0]);
    assert_eq!(client.ask("nonsense\r\n\r\n").expect("an answer").status, 400);
    assert!(client.has_ended().expect("no reset"));
    let seen = counters(&mut fleet);
    assert_eq!((seen.connections, seen.requests, seen.answered, seen.malformed), (2, 8, 8, 1));
    assert_eq!(seen.in_flight, 0);
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    for time in [Duration::ZERO, millis(3)] {
        let mut fleet = fleet_of(&[service(Time::Fixed(time), 10)]);
        let mut client = Client::connect(fleet.addresses()[0]);
        // more than are read at once, and than are let wait
        let all: String =
            (0..300).map(|row| if row % 7 == 3 { BAD_LENGTH } else { "GET / HTTP/1.1\r\n\r\n" }).collect();
        client.send(&all).expect("it reads");
        for row in 0..300 {
            assert_eq!(client.next_answer().expect("an answer").body.len(), 10, "{row}");
        }
        assert_eq!(counters(&mut fleet).answered, 300);
    }
}

/// A request whose end is its body's.
const BAD_LENGTH: &str = "POST / HTTP/1.1\r\nContent-Length: 18\r\n\r\nGET / HTTP/1.1\r\n\r\n";

#[test]
fn a_large_answer_goes_on_when_its_client_reads() {
    let mut fleet = fleet_of(&[service(Time::Fixed(Duration::ZERO), 20 << 20)]);
    let mut client = Client::connect(fleet.addresses()[0]);
    client.send("GET / HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\n\r\n").expect("it reads");
    until("both are in flight", || (counters(&mut fleet).in_flight == 2).then_some(()));
    for _ in 0..2 {
        assert_eq!(client.next_answer().expect("an answer").body.len(), 20 << 20);
    }
    assert_eq!((counters(&mut fleet).answered, counters(&mut fleet).in_flight), (2, 0));
}

#[test]
fn slow_is_slower_and_fine_is_fine_again() {
    let mut fleet = fleet(1);
    let mut client = Client::connect(fleet.addresses()[0]);
    tell(&mut fleet, "slow 80ms");
    assert!(client.get("/").expect("an answer").after >= millis(80));
    tell(&mut fleet, "fine");
    measured_once("fine", || client.get("/").expect("an answer").after, |after| *after < millis(40));
}

#[test]
fn a_body_drips() {
    let mut fleet = fleet_of(&[service(Time::Fixed(Duration::ZERO), 5)]);
    let mut client = Client::connect(fleet.addresses()[0]);
    tell(&mut fleet, "drip 40ms");
    let measure = || client.get("/").expect("an answer");
    let answer = measured_once("the head comes at once", measure, |answer| answer.head_after < millis(30));
    assert!(answer.after >= millis(200) && answer.body == b"ringg", "{answer:?}");
    assert!(client.ask("HEAD / HTTP/1.1\r\n\r\n").expect("an answer").after < millis(5_000));
    let again = client.ask("GET / HTTP/1.1\r\nConnection: close\r\n\r\n").expect("an answer");
    assert!(again.after >= millis(200) && client.has_ended().expect("no reset"));
}

#[test]
fn a_share_of_the_answers_are_errors() {
    let mut fleet = fleet(1);
    let mut client = Client::connect(fleet.addresses()[0]);
    tell(&mut fleet, "error 20%");
    let statuses: Vec<_> = (0..1_000).map(|_| client.get("/").expect("an answer").status).collect();
    let errors = statuses.iter().filter(|status| **status == 503).count();
    assert!((140..260).contains(&errors), "{errors}");
    assert_eq!(counters(&mut fleet).errors, errors as u64);
    tell(&mut fleet, "error 100%");
    assert_eq!(client.get("/").expect("an answer").status, 503);
}

#[test]
fn a_black_hole_reads_and_never_answers() {
    let mut fleet = fleet(1);
    tell(&mut fleet, "blackhole");
    let mut client = Client::connect(fleet.addresses()[0]);
    client.stream.get_ref().set_read_timeout(Some(millis(50))).expect("a socket");
    let silent = client.get("/").expect_err("it never answers");
    assert_eq!(silent.kind(), io::ErrorKind::WouldBlock);
    tell(&mut fleet, "fine");
    assert_eq!(client.get("/").expect_err("nor what comes after it").kind(), io::ErrorKind::WouldBlock);
    let seen = counters(&mut fleet);
    assert_eq!((seen.requests, seen.answered, seen.in_flight, seen.in_flight_max), (2, 0, 2, 2));
    drop(client);
    until("its client has gone", || (counters(&mut fleet).gone == 2).then_some(()));
    assert_eq!(Client::connect(fleet.addresses()[0]).get("/").expect("an answer").status, 200);
}

#[test]
fn every_request_is_reset() {
    let mut fleet = fleet(1);
    tell(&mut fleet, "reset");
    for _ in 0..3 {
        let mut client = Client::connect(fleet.addresses()[0]);
        assert_eq!(client.get("/").expect_err("a reset").kind(), io::ErrorKind::ConnectionReset);
    }
    let seen = counters(&mut fleet);
    assert_eq!((seen.requests, seen.resets, seen.answered, seen.in_flight), (3, 3, 0, 0));
}

#[test]
fn what_is_due_in_a_freeze_is_answered_at_its_end() {
    let mut fleet = fleet(1);
    let mut clients: Vec<_> = (0..5).map(|_| Client::connect(fleet.addresses()[0])).collect();
    clients.iter_mut().for_each(|client| drop(client.get("/").expect("an answer")));
    let waited = timed(|| {
        tell(&mut fleet, "freeze 300ms");
        clients.iter_mut().for_each(|client| client.send("GET / HTTP/1.1\r\n\r\n").expect("it listens"));
        clients.iter_mut().for_each(|client| assert_eq!(client.next_answer().expect("an answer").status, 200));
    });
    assert!(waited >= millis(300), "{waited:?}");
    let measure = || clients[0].get("/").expect("an answer").after;
    measured_once("as before", measure, |after| *after < millis(100));
    assert!(counters(&mut fleet).in_flight_max >= 5);
}

#[test]
fn a_killed_instance_refuses_and_comes_back_with_its_counters() {
    let mut fleet = fleet(2);
    let address = fleet.addresses()[0];
    let mut client = Client::connect(address);
    for _ in 0..7 {
        client.get("/").expect("an answer");
    }
    tell(&mut fleet, "blackhole");
    client.send("GET / HTTP/1.1\r\n\r\n").expect("it listens");
    until("it is seen", || (counters(&mut fleet).requests == 8).then_some(()));
    fleet.kill(0);
    assert!(client.has_ended().is_ok_and(|ended| ended) || client.has_ended().is_err());
    assert_eq!(TcpStream::connect(address).expect_err("nobody listens").kind(), io::ErrorKind::ConnectionRefused);
    let dead = counters(&mut fleet);
    assert_eq!((dead.requests, dead.answered, dead.gone, dead.in_flight), (8, 7, 1, 0));
    assert!(fleet.tell(0, Fault::Fine).expect_err("it is dead").to_string().contains("it does not run"));
    fleet.start(0).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(fleet.addresses()[0], address);
    Client::connect(address).get("/").expect("an answer");
    let both = counters(&mut fleet);
    assert_eq!((both.connections, both.requests, both.answered, both.gone), (2, 9, 8, 1));
    // a frozen one is killed too, and the other one has not noticed anything
    fleet.child(0).expect("it runs").freeze().expect("it runs");
    fleet.kill(0);
    assert!(TcpStream::connect(address).is_err() && fleet.child(0).is_none());
    assert_eq!(Client::connect(fleet.addresses()[1]).get("/").expect("an answer").status, 200);
}

#[test]
fn anyone_may_command_it_over_a_unix_socket() {
    be_the_tool();
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("control");
    let start = || {
        let control = format!("unix:{}", path.display());
        Child::start(&Spec {
            name: "upstream".to_owned(),
            program: this_program().to_owned(),
            arguments: ["upstream", "--listen", "127.0.0.1:0", "--control", &control].map(Into::into).into(),
            ..Spec::default()
        })
        .unwrap_or_else(|error| panic!("{error}"))
    };
    let child = start();
    let stream = until("it listens", || UnixStream::connect(&path).ok());
    let mut lines = BufReader::new(stream);
    let mut ask = |line: &str| {
        lines.get_mut().write_all(format!("{line}\n").as_bytes()).expect("it listens");
        let mut answer = String::new();
        lines.read_line(&mut answer).expect("it answers");
        answer
    };
    assert_eq!(ask("slow 200ms"), "{\"fault\":\"slow 200ms\"}\n");
    assert_eq!(ask("slow 200"), "{\"error\":\"a time has a unit: 200ms?; or counters, or die\"}\n");
    let seen: Counters = serde_json::from_str(&ask("counters")).expect("counters");
    assert_eq!(seen, Counters::default());
    // where it listens is said on standard output, which for a silent child is among its last words
    assert!(child.last_words().contains("listening on http://127.0.0.1:"), "{}", child.last_words());
    drop(child);
    assert!(lines.read(&mut [0]).is_ok_and(|length| length == 0) && path.exists());
    // a socket that a killed one has left is taken over; one that is in use is not
    let _second = start();
    until("it listens again", || UnixStream::connect(&path).ok());
    let mut third = start();
    let ended = until("it ends", || third.has_ended());
    assert!(ended.to_string() == "exit code 2" && third.last_words().contains("in use"), "{}", third.last_words());
}
