//! A crew that takes another configuration into use, while workers fail.

use super::*;
use crate::control::crew::Next;

/// Of those that stalled workers wait at, one that nobody else uses.
const GATE_OF_RELOAD: usize = 2;
const GATE_OF_RETIRING: usize = 5;
const GATE_OF_RETRIES: usize = 6;

/// The next generation, whose only route answers with this.
fn next(staffed: &Staffed, body: &str) -> Next {
    let old = staffed.crew.shared();
    let text = format!(
        "[gateway]\nworkers = 2\n[[listener]]\nname = \"edge\"\nlisten = \"127.0.0.1:0\"\n\
         [[route]]\nname = \"all\"\nmatch = {{ path = \"/*\" }}\nrespond = {{ status = 200, body = \"{body}\" }}\n"
    );
    let config = Arc::new(config::parse(&text, "test").unwrap_or_else(|errors| panic!("{errors}")));
    let (router, stats) = (Router::try_new(&config).unwrap(), old.stats.succeed(&config));
    Next { shared: Arc::new(old.succeed(config, router, stats, &Fit::WHOLE)), log: None, sockets: Vec::new() }
}

/// Waits for nothing of a worker that has retired: whatever it still has, it may never read its mailbox again.
#[test]
fn nobody_waits_for_a_worker_that_retires_and_reads_nothing() {
    let mut staffed = Staffed::start("auto");
    let mut bystander = staffed.client_of(1);
    let used = next(&staffed, "hallo");
    on_tokio(staffed.crew.prepare(&used)).unwrap();
    failing::close(GATE_OF_RETIRING);
    staffed.order(0, Way::Stall { gate: GATE_OF_RETIRING });
    if let Some(holder) = &staffed.crew.posts[0].holder {
        holder.notice.give(Reason::Unreachable);
    }
    let began = clock::now();
    on_tokio(staffed.crew.adopt(used));
    assert!(clock::now().since(began) < Duration::from_secs(2), "it would be four");
    assert_eq!(bystander.body(), "hallo");
    staffed.look_until("worker 0 is replaced", &mut bystander, |s| s.restarts() == [1, 0]);
    assert_eq!(staffed.client_of(0).body(), "hallo");
    let retired = staffed.crew.leavers[0].holder.thread.thread().clone();
    failing::open(GATE_OF_RETIRING, &retired);
    staffed.drain();
}

/// Who reloads again and again, because a worker stands still, must not be why it is never replaced.
#[test]
fn a_worker_that_stands_still_is_replaced_however_often_somebody_reloads() {
    let mut staffed = Staffed::start("auto");
    let mut bystander = staffed.client_of(1);
    failing::close(GATE_OF_RETRIES);
    staffed.order(0, Way::Stall { gate: GATE_OF_RETRIES });
    let used = next(&staffed, "hallo");
    for _ in 0..2 {
        if on_tokio(staffed.crew.prepare(&used)).is_ok() {
            break;
        }
        staffed.crew.look(clock::now());
    }
    assert_eq!((staffed.restarts(), bystander.body().as_str()), ([1, 0], "hello"));
    let stalled = staffed.crew.leavers[0].holder.thread.thread().clone();
    failing::open(GATE_OF_RETRIES, &stalled);
    staffed.drain();
}

fn on_tokio<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

#[test]
fn who_takes_a_place_begins_with_the_configuration_in_use() {
    for driver in DRIVERS {
        let mut staffed = Staffed::start(driver);
        let (mut first, mut bystander) = (staffed.client_of(0), staffed.client_of(1));
        let (unused, used) = (next(&staffed, "other"), next(&staffed, "hallo"));
        on_tokio(staffed.crew.prepare(&unused)).unwrap();
        staffed.crew.tell(|| Command::Abandon);
        let old = Arc::downgrade(staffed.crew.shared());
        assert_eq!(first.body(), "hello", "{driver}: nothing of what was abandoned is seen");
        on_tokio(async {
            staffed.crew.prepare(&used).await.unwrap();
            staffed.crew.adopt(used).await;
        });
        assert_eq!((first.body(), bystander.body()), ("hallo".to_owned(), "hallo".to_owned()), "{driver}");
        staffed.order(0, Way::Panic);
        staffed.look_until("worker 0 is replaced", &mut bystander, |s| s.restarts() == [1, 0]);
        assert_eq!(staffed.client_of(0).body(), "hallo", "{driver}");
        drop((first, bystander, unused));
        let deadline = clock::now() + PATIENCE;
        while old.strong_count() > 0 {
            assert!(clock::now() < deadline, "{driver}: the old generation is freed");
            staffed.crew.look(clock::now());
            std::thread::yield_now();
        }
        staffed.drain();
    }
}

#[test]
fn nothing_is_prepared_when_one_worker_stands_still() {
    let mut staffed = Staffed::start("auto");
    let mut bystander = staffed.client_of(1);
    failing::close(GATE_OF_RELOAD);
    staffed.order(0, Way::Stall { gate: GATE_OF_RELOAD });
    let used = next(&staffed, "hallo");
    assert!(on_tokio(staffed.crew.prepare(&used)).is_err(), "it waits for all of them");
    assert_eq!(bystander.body(), "hello", "and none goes on alone");
    staffed.look_until("worker 0 is replaced", &mut bystander, |s| s.restarts() == [1, 0]);
    on_tokio(async {
        staffed.crew.prepare(&used).await.unwrap();
        staffed.crew.adopt(used).await;
    });
    assert_eq!((staffed.client_of(0).body(), bystander.body()), ("hallo".to_owned(), "hallo".to_owned()));
    let stalled = staffed.crew.leavers[0].holder.thread.thread().clone();
    failing::open(GATE_OF_RELOAD, &stalled);
    staffed.drain();
}
