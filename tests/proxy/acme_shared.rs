//! Several gateways behind one address, with one cache: whichever the authority comes to answers, one orders, all have what it got.

use crate::acme::{NAME, Pebble, acme, awaited, looking, ports};
use crate::support::tls::Authority;
use crate::support::{Driver, Gateway, Setup, eventually, lock};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};

/// An address behind which several are, in turn; while there is nobody its clients wait.
#[derive(Default)]
struct Address {
    behind: Mutex<(usize, Vec<String>)>,
    changed: Condvar,
    came: Mutex<usize>,
}

impl Address {
    fn listen(port: u16) -> Arc<Self> {
        let listener = TcpListener::bind(("127.0.0.1", port)).expect("nobody has it");
        let address = Arc::new(Self::default());
        let of = Arc::clone(&address);
        std::thread::spawn(move || {
            for socket in listener.incoming().map_while(Result::ok) {
                let of = Arc::clone(&of);
                std::thread::spawn(move || of.pass_on(socket));
            }
        });
        address
    }

    fn lead_to(&self, behind: &[&Gateway]) {
        lock(&self.behind).1 = behind.iter().map(|gateway| gateway.address("edge").to_owned()).collect();
        self.changed.notify_all();
    }

    fn pass_on(&self, client: TcpStream) {
        *lock(&self.came) += 1;
        let to = {
            let mut behind = lock(&self.behind);
            while behind.1.is_empty() {
                behind = self.changed.wait(behind).expect("nobody panics here");
            }
            behind.0 += 1;
            behind.1[behind.0 % behind.1.len()].clone()
        };
        let Ok(server) = TcpStream::connect(to) else { return };
        let way = |mut from: TcpStream, mut to: TcpStream| {
            // either may leave at any time
            let _ = std::io::copy(&mut from, &mut to);
            let _ = to.shutdown(Shutdown::Write);
        };
        let (from, to) = (client.try_clone().expect("a handle"), server.try_clone().expect("a handle"));
        let there = std::thread::spawn(move || way(from, to));
        way(server, client);
        let _ = there.join();
    }
}

/// How often this gateway has got a certificate.
fn issued(gateway: &mut Gateway) -> usize {
    gateway.running().stderr().iter().filter(|line| line.contains("was issued")).count()
}

/// Begins with one gateway, is told when the authority has come, and goes on with those that are left.
fn share(challenge: &str, is_killed: bool) {
    let authority = Authority::new();
    let [listens, edge] = ports();
    let Some(_pebble) = Pebble::start(&authority, listens, edge) else { return };
    let address = Address::listen(edge);
    let text = acme(&authority, listens, challenge);
    let plain = "[[listener]]\nname = \"tls\"\nlisten = \"127.0.0.1:0\"\n[listener.tls]\n";
    let answers = "[[route]]\nrespond = { body = \"ok\" }\n";
    // the authority comes to the one called edge
    let (listener, config) = match challenge {
        "http-01" => (String::new(), format!("{plain}acme = {text}\n{answers}")),
        _ => (format!("[listener.tls]\nacme = {text}\n"), answers.to_owned()),
    };
    let shows = if challenge == "http-01" { "tls" } else { "edge" };
    let setup = Setup { listener: &listener, config: &config, ..Setup::default() };
    let mut first = Some(Gateway::start_with(Driver::Epoll, &setup));
    eventually("the authority has come", || (*lock(&address.came) > 0).then_some(()));
    if is_killed {
        first = None;
    }
    // the lock is the first one's; or nobody's
    let mut second = Gateway::start_with(Driver::Epoll, &setup);
    let answers = |line: &String| line.contains("another gateway orders for");
    eventually("it answers too", || second.running().stderr().iter().any(answers).then_some(()));
    match &first {
        // pebble asks three times at once, and wants the right answer each time
        Some(first) => address.lead_to(&[first, &second]),
        None => address.lead_to(&[&second]),
    }
    let rules = looking();
    let chain = awaited(second.address(shows), &rules, |chain| chain.len() > 1);
    if let Some(first) = &mut first {
        assert_eq!(awaited(first.address(shows), &rules, |chain| chain.len() > 1), chain);
        assert_eq!([issued(first), issued(&mut second)], [1, 0], "one has ordered");
    }
    let left: Vec<_> = std::fs::read_dir(authority.path("cache")).expect("a folder").flatten().collect();
    let mut left: Vec<_> = left.iter().map(|it| it.file_name().into_string().expect("UTF-8")).collect();
    left.sort();
    let names = ["attempts.json", "key", "pem"].map(|ending| format!("{NAME}.{ending}"));
    assert_eq!(left, [&names[..], &["account.json".to_owned(), "lock".to_owned()]].concat());
}

#[test]
fn whichever_gateway_is_asked_over_tls_answers_for_the_one_that_orders() {
    share("tls-alpn-01", false);
}

#[test]
fn whichever_gateway_is_asked_over_http_answers_for_the_one_that_orders() {
    share("http-01", false);
}

#[test]
fn an_order_of_a_gateway_that_was_killed_is_gone_on_with_by_another() {
    share("tls-alpn-01", true);
}
