//! What one side says, and what the other makes of it; both are here, on two threads.

use super::*;
use crate::config::Listener;
use crate::net::listener::{self, Bound};
use crate::worker::Estate;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;

fn listener(name: &str, bind: Bind) -> Listener {
    let text = "[[listener]]\nname = \"edge\"\nlisten = \"127.0.0.1:0\"\n[[route]]\nname = \"all\"\nrespond = {}\n";
    let config = crate::config::parse(text, "a test").unwrap();
    Listener { name: name.to_owned(), bind, ..config.listeners[0].clone() }
}

/// Listeners of so many sockets each.
fn given(doors: &[(&Bound, &str)]) -> Given {
    let door = |(bound, name): &(&Bound, &str)| {
        let place = Place::from(&bound.address);
        let sockets: Vec<OwnedFd> = bound.sockets.iter().map(|socket| listener::duplicate(socket).unwrap()).collect();
        (Door { name: (*name).to_owned(), place: place.clone(), at: place, sockets: sockets.len() }, sockets)
    };
    Given { doors: doors.iter().map(door).collect(), admin: None }
}

fn tcp(workers: usize) -> Bound {
    listener::bind(&Bind::Tcp("127.0.0.1:0".parse().unwrap()), 0, workers).unwrap()
}

fn address(bound: &Bound) -> std::net::SocketAddr {
    let Bind::Tcp(address) = bound.address else { panic!("a TCP address") };
    address
}

/// Gives to `next`, which runs on a thread of its own; what comes of it on both sides.
fn hand_to<T: Send + 'static>(
    given: Given,
    next: impl FnOnce(UnixStream) -> T + Send + 'static,
) -> (Result<Serving, Vec<String>>, T) {
    let (own, its) = UnixStream::pair().unwrap();
    let next = thread::spawn(move || next(its));
    let handed = giver::hand(&own, given, Estate::default);
    drop(own);
    (handed, next.join().unwrap())
}

#[test]
fn what_is_handed_over_listens_on_and_nobody_who_waits_is_lost() {
    let bound = tcp(2);
    let at = address(&bound);
    let waiting: Vec<TcpStream> = (0..20).map(|_| TcpStream::connect(at).unwrap()).collect();
    let (handed, sockets) = hand_to(given(&[(&bound, "edge")]), move |before| {
        let mut inherited = Inheritance::from(before).unwrap();
        let Bound { sockets, address, .. } = inherited.take(&listener("edge", Bind::Tcp(at)), 2).unwrap().unwrap();
        assert_eq!(address, Bind::Tcp(at));
        assert!(inherited.take(&listener("other", Bind::Tcp("127.0.0.1:1".parse().unwrap())), 2).is_none());
        assert_eq!(inherited.prepare().unwrap(), Estate::default());
        inherited.serve();
        sockets
    });
    assert_eq!(handed.unwrap().taken, [2]);
    drop(bound);
    let accepting: Vec<TcpListener> = sockets.into_iter().map(TcpListener::from).collect();
    let accepted = accepting.iter().flat_map(|listener| std::iter::from_fn(|| listener.accept().ok()));
    assert_eq!(accepted.count(), waiting.len());
}

#[test]
fn more_sockets_than_fit_a_message_arrive_in_order() {
    let bounds: Vec<Bound> = (0..150).map(|_| tcp(1)).collect();
    let addresses: Vec<_> = bounds.iter().map(address).collect();
    let doors: Vec<_> = bounds.iter().map(|bound| (bound, "edge")).collect();
    let (handed, ()) = hand_to(given(&doors), move |before| {
        let mut inherited = Inheritance::from(before).unwrap();
        for at in addresses {
            let taken = inherited.take(&listener("edge", Bind::Tcp(at)), 1).unwrap().unwrap();
            let socket = TcpListener::from(taken.sockets.into_iter().next().unwrap());
            assert_eq!(socket.local_addr().unwrap(), at);
        }
        inherited.prepare().unwrap();
        inherited.serve();
    });
    assert_eq!(handed.unwrap().taken, [1; 150]);
}

#[test]
fn other_numbers_of_workers_leave_or_bind_the_difference() {
    for (had, wanted) in [(1, 3), (3, 1), (2, 2)] {
        let folder = tempfile::tempdir().unwrap();
        let unix = listener::bind(&Bind::Unix(folder.path().join("s")), 0o600, had).unwrap();
        let (bound, path) = (tcp(had), folder.path().join("s"));
        let at = address(&bound);
        let (handed, ()) = hand_to(given(&[(&bound, "edge"), (&unix, "local")]), move |before| {
            let mut inherited = Inheritance::from(before).unwrap();
            let mut take = |name, bind| inherited.take(&listener(name, bind), wanted).unwrap().unwrap();
            let (tcp, unix) = (take("edge", Bind::Tcp(at)), take("local", Bind::Unix(path)));
            assert_eq!((tcp.sockets.len(), unix.sockets.len(), unix.file.is_some()), (wanted, wanted, true));
            // its file is the other's until it is left to it
            unix.file.unwrap().leaver().leave();
            inherited.prepare().unwrap();
            inherited.serve();
        });
        assert_eq!(handed.unwrap().taken, [had.min(wanted); 2]);
        assert!(folder.path().join("s").exists());
    }
}

#[test]
fn a_port_that_the_kernel_chose_is_told_by_the_name() {
    let chosen = Bind::Tcp("127.0.0.1:0".parse().unwrap());
    let door = Door { name: "edge".to_owned(), place: Place::from(&chosen), at: Place::from(&chosen), sockets: 1 };
    assert!(door.is_of("edge", &chosen) && !door.is_of("other", &chosen));
    let fixed = Bind::Tcp("127.0.0.1:80".parse().unwrap());
    let door = Door { place: Place::from(&fixed), ..door };
    assert!(door.is_of("renamed", &fixed) && !door.is_of("edge", &chosen));
}

#[test]
fn whatever_the_next_process_says_else_is_why_there_was_no_upgrade() {
    let bound = tcp(1);
    let given = || given(&[(&bound, "edge")]);
    let (handed, ()) = hand_to(given(), drop);
    assert!(handed.unwrap_err()[0].contains("ended before it served"));
    let (handed, ()) = hand_to(given(), |before| {
        Inheritance::from(before).unwrap().decline(vec!["one".to_owned(), "two".to_owned()]);
    });
    assert_eq!(handed.unwrap_err(), ["one", "two"]);
    let (handed, ()) = hand_to(given(), |before| Inheritance::from(before).unwrap().serve());
    assert!(handed.unwrap_err()[0].contains("was not told to"));
    for nonsense in [&b"\xff\xff\xff\xff"[..], b"\0\0\0\x02{]", b"\0\0\0"] {
        let (handed, ()) = hand_to(given(), move |mut before| {
            before.write_all(nonsense).unwrap();
            before.shutdown(std::net::Shutdown::Write).unwrap();
            let _ = before.read_to_end(&mut Vec::new());
        });
        assert_eq!(handed.unwrap_err().len(), 1, "{nonsense:?}");
    }
}

#[test]
fn an_heir_that_is_given_nonsense_says_so() {
    for (sent, sockets) in
        [(&b"\0\0\0\x02{]"[..], 0), (b"\xff\xff\xff\xff", 0), (b"", 0), (b"\0\0\0\x0c{\"doors\":[]}", 1)]
    {
        let (mut own, its) = UnixStream::pair().unwrap();
        own.write_all(sent).unwrap();
        if sockets > 0 {
            // more descriptors than were announced are nobody's
            let more = TcpListener::bind("127.0.0.1:0").unwrap();
            wire::send_descriptors(&own, &[more.into()]).unwrap();
        }
        drop(own);
        let read = Inheritance::from(its);
        assert_eq!(read.is_ok(), sockets > 0, "{sent:?}");
    }
}

#[test]
fn a_file_is_taken_over_only_if_it_is_a_socket() {
    use crate::net::socket_file::SocketFile;
    assert!(SocketFile::adopt(Path::new("/dev/null")).is_err());
    assert!(SocketFile::adopt(Path::new("/nowhere/at/all")).is_err());
}
