//! Costs, quotas, requests at once, and limits that several processes share.

use super::*;
use crate::units::Window;

#[test]
fn limits_are_called_as_the_metrics_call_them() {
    let text = format!(
        "{LISTENER}A:limit = [\"all\", {{ rate = \"1/s\" }}, {{ rate = \"2/s\" }}]\nB:limit = [{{ rate = \"1/s\" }}]\n\
         [limit.all]\nrate = \"1/s\"\n"
    );
    let limits = of_file(&text, None);
    let config = config_of(&text);
    let names: Vec<_> = (0..limits.limiters.len()).map(|row| limits.name(row).to_owned()).collect();
    assert_eq!(names, config.limit_names().collect::<Vec<_>>());
    assert_eq!(names.len(), 4);
}

#[test]
fn requests_take_what_they_cost_where_both_name_a_limit_what_the_route_says() {
    let cost = |cost, of: Limit| Limit { cost, ..of };
    let named = Limit { name: Some("work".into()), ..limit(1, 10, LimitKey::Route) };
    let routes = [route("orders", vec![cost(4, named.clone()), cost(3, limit(1, 9, LimitKey::ClientIp))], None)];
    let table = Arc::new(KeyTable::new(64, [3, 4]));
    let listeners = [("web", std::slice::from_ref(&named))];
    let limits = Arc::new(Limits::of((std::slice::from_ref(&named), &routes), &listeners, &[], table, 2, None));
    let mut admission = Admission::new(limits);
    assert_eq!([ask(&mut admission, 1, None), ask(&mut admission, 2, None)], [PASS; 2]);
    let Admitted::RateLimited { limit, quota } = ask(&mut admission, 3, None) else { panic!("eight of ten are taken") };
    assert_eq!((limit, quota.remaining, quota.reset), (0, 2, Duration::from_secs(2)));
}

#[test]
fn what_a_response_says_is_taken_once_and_no_further_than_a_burst_below_zero() {
    let now = Instant::from_nanos(1_000_000_000);
    for per in [LimitKey::Route, LimitKey::ClientIp] {
        let told = Limit { cost: 2, cost_header: Some(HeaderName::from_static("x-cost")), ..limit(1, 10, per) };
        let mut admission = Admission::new(limits(&[route("orders", vec![told], None)], None));
        assert_eq!(ask(&mut admission, 1, None), PASS);
        let mut marks = Default::default();
        let caller = IpAddr::from([10, 0, 0, 1]).into();
        admission.limits().marks(RouteId(0), caller, &|_| None, now.into(), &mut marks);
        let charge = |paid_and_cost| admission.limits().charge((RouteId(0), 0), marks[0], paid_and_cost, now.into());
        charge((0, 1)); // is paid
        charge((0, 5));
        charge((5, 8)); // another answer
        assert_eq!(ask(&mut admission, 1, None), PASS, "two are left");
        let wait = |admission: &mut Admission| match ask(admission, 1, None) {
            Admitted::RateLimited { quota, .. } => quota.reset.as_secs(),
            admitted => panic!("{admitted:?}"),
        };
        assert_eq!(wait(&mut admission), 2);
        admission.limits().charge((RouteId(0), 0), marks[0], (0, 1_000_000), now.into());
        assert_eq!(wait(&mut admission), 12, "a burst below zero, and two");
    }
}

#[test]
fn a_quota_is_each_clients_own_and_anew_with_each_window_also_in_another_process() {
    let quota = Limit { measure: Measure::Quota { count: 2, window: Window::Day }, ..limit(1, 1, LimitKey::ClientIp) };
    let all = Limit { measure: Measure::Quota { count: 5, window: Window::Month }, ..limit(1, 1, LimitKey::Route) };
    let routes = [route("orders", vec![quota, all], None)];
    let ask = |admission: &mut Admission, client: u8, unix: u64| {
        let at = Moment { now: Instant::from_nanos(77), unix };
        admission.admit(AT, IpAddr::from([10, 0, 0, client]).into(), &|_| None, at)
    };
    let day = 86_400;
    let first = limits(&routes, None);
    let mut admission = Admission::new(Arc::clone(&first));
    assert_eq!([ask(&mut admission, 1, 10), ask(&mut admission, 1, 20), ask(&mut admission, 2, 30)], [PASS; 3]);
    let Admitted::RateLimited { limit, quota } = ask(&mut admission, 1, 40) else { panic!("two a day") };
    assert_eq!((limit, quota.remaining, quota.reset), (0, 0, Duration::from_secs(day - 40)));
    // another process goes on with it
    let second = limits(&routes, None);
    second.quotas().take_on(&first.quotas().debts(Moment::of_quotas(50)), Moment::of_quotas(50));
    let mut admission = Admission::new(second);
    assert_eq!(limited_by(ask(&mut admission, 1, 60)), Some(0));
    assert_eq!([ask(&mut admission, 1, day), ask(&mut admission, 1, day + 1)], [PASS; 2]);
    assert_eq!(limited_by(ask(&mut admission, 2, day + 2)), Some(1), "five a month");
    assert_eq!(ask(&mut admission, 2, 31 * day), PASS);
}

#[test]
fn threads_never_take_more_than_a_quota() {
    let quota =
        Limit { measure: Measure::Quota { count: 5_000, window: Window::Hour }, ..limit(1, 1, LimitKey::Route) };
    let limits = limits(&[route("orders", vec![quota], None)], None);
    let passed: usize = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let mut admission = Admission::new(Arc::clone(&limits));
                scope.spawn(move || (0..3_000).filter(|_| ask(&mut admission, 1, None) == PASS).count())
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert_eq!(passed, 5_000);
}

#[test]
fn places_are_each_clients_own_and_come_back_and_a_refused_request_keeps_none() {
    let at_once = Limit { measure: Measure::Concurrency(2), ..limit(1, 1, LimitKey::ClientIp) };
    let few = limit(1, 4, LimitKey::Route);
    let shared = limits(&[route("orders", vec![at_once.clone(), few], None)], None);
    let mut admission = Admission::new(Arc::clone(&shared));
    let mut held = Vec::new();
    for client in [1, 1, 2] {
        assert_eq!(ask(&mut admission, client, None), PASS);
        held.extend_from_slice(admission.taken());
    }
    assert_eq!(limited_by(ask(&mut admission, 1, None)), Some(0), "and takes no token");
    shared.leave(held[0]);
    assert_eq!(ask(&mut admission, 1, None), PASS);
    held[0] = admission.taken()[0];
    for _ in 0..9 {
        assert_eq!(limited_by(ask(&mut admission, 2, None)), Some(1), "no token, and the place is back");
        assert!(admission.taken().is_empty());
    }
    held.drain(..).for_each(|place| shared.leave(place));
    // who is there still counts when the number changes
    let shared = limits(&[route("orders", vec![at_once.clone()], None)], None);
    let mut admission = Admission::new(Arc::clone(&shared));
    assert_eq!([ask(&mut admission, 1, None), ask(&mut admission, 1, None)], [PASS; 2]);
    let three = Limit { measure: Measure::Concurrency(3), ..at_once };
    let mut admission = Admission::new(limits(&[route("orders", vec![three], None)], Some(&shared)));
    assert_eq!(ask(&mut admission, 1, None), PASS);
    assert_eq!(limited_by(ask(&mut admission, 1, None)), Some(0));
}

#[test]
fn clients_of_a_shared_limit_are_called_the_same_in_every_process_and_no_two_alike() {
    let text = |per: &str| {
        format!(
            "{LISTENER}[redis]\nurl = \"redis://127.0.0.1:1\"\n[limit.all]\nrate = \"10/s\"\nshared = \"redis\"\nper = {per}\nA:limit = [\"all\"]\n"
        )
    };
    let mut names = std::collections::HashSet::new();
    for per in ["\"gateway\"", "\"client_ip\"", "\"header:x-key\"", "[\"client_ip/24\", \"header:x-key\"]"] {
        for (client, header) in [(1, None), (2, None), (1, Some(&b"a"[..])), (1, Some(&b""[..])), (1, Some(&b"ab"[..]))]
        {
            // with other secrets
            let told = [[1, 2], [3, 4]].map(|secret| {
                let limits =
                    Arc::new(Limits::new(&config_of(&text(per)), Arc::new(KeyTable::new(64, secret)), 2, None));
                assert_eq!(ask(&mut Admission::new(Arc::clone(&limits)), client, header), PASS);
                let mut reports = Vec::new();
                limits
                    .far()
                    .report(|report| reports.push((report.name, report.used, report.burst, report.interval_nanos)));
                reports
            });
            assert_eq!(told[0], told[1]);
            assert_eq!(told[0].len(), 1);
            assert_eq!((told[0][0].1, told[0][0].2, told[0][0].3), (1, 10, 100_000_000));
            names.insert(told[0][0].0);
        }
    }
    // gateway: one; addresses: two; headers: none, "a", "", "ab"; of both, where the network is one: four
    assert_eq!(names.len(), 1 + 2 + 4 + 4);
}
