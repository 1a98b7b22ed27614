//! Slots and tokens through one question: what is taken, told and kept.

use super::*;
use crate::config::{self, HeaderRules, Match, Retry, RetryOn, Rewrite, Target, Timeout};
use crate::units::{GroupId, Rate, Ratio};
use http::{HeaderValue, StatusCode};
use std::net::IpAddr;
use std::time::Duration;

/// The first route by the first listener.
const AT: (RouteId, ListenerId, Met) = (RouteId(0), ListenerId(0), Met::All);

fn rate(count: u64, seconds: u64, burst: u64) -> Measure {
    Measure::Rate { rate: Rate::try_new(count, Duration::from_secs(seconds)).unwrap(), burst }
}

fn limit(count: u64, burst: u64, per: LimitKey) -> Limit {
    Limit {
        measure: rate(count, 1, burst),
        per,
        dry_run: false,
        tiers: Arc::default(),
        name: None,
        cost: 1,
        cost_header: None,
        is_shared: false,
    }
}

fn route(name: &str, limits: Vec<Limit>, concurrent_max: Option<u32>) -> Route {
    let target = Target::Respond {
        status: StatusCode::OK,
        body: String::new(),
        content_type: HeaderValue::from_static("text/plain"),
    };
    let on = RetryOn { connect: true, reset: true, timeout: true, statuses: Vec::new(), codes: Vec::new() };
    let min_remaining = Ratio::try_new(0.1).unwrap();
    let retry = Retry {
        attempts: 0,
        on,
        non_idempotent: false,
        per_try_timeout: None,
        backoff_max: Duration::from_millis(250),
        min_remaining,
    };
    Route {
        name: name.into(),
        matcher: Match::default(),
        target,
        rewrite: Rewrite::None,
        query: crate::config::QueryRules::default(),
        captures: None,
        templates: None,
        request_headers: HeaderRules::default(),
        response_headers: HeaderRules::default(),
        timeout: Timeout::Fixed(Duration::from_secs(1)),
        limits,
        concurrent_max,
        defaulted: Default::default(),
        is_guard: false,
        auth: None,
        cors: None,
        access: config::Access::default(),
        body_bytes_max: None,
        body_timeout: None,
        tunnel_timeout: None,
        body_rate_min: None,
        grpc_web: false,
        traffic: Default::default(),
        is_plain: true,
        retry,
    }
}

fn limits(routes: &[Route], previous: Option<&Limits>) -> Arc<Limits> {
    let table = previous.map_or_else(|| Arc::new(KeyTable::new(64, [3, 4])), |old| Arc::clone(&old.tables.rates));
    Arc::new(Limits::of((&[], routes), &[("web", &[])], &["gold".into()], table, 2, previous))
}

fn ask(admission: &mut Admission, client: u8, header: Option<&[u8]>) -> Admitted {
    let now = Instant::from_nanos(1_000_000_000);
    admission.admit(AT, IpAddr::from([10, 0, 0, client]).into(), &|_| header, now)
}

fn told(limits: &Limits) -> Vec<u8> {
    let mut out = Vec::new();
    limits.write_policies((RouteId(0), ListenerId(0)), &[], &mut out);
    out
}

const PASS: Admitted = Admitted::Pass { dry_run: 0 };

fn limited_by(admitted: Admitted) -> Option<usize> {
    match admitted {
        Admitted::RateLimited { limit, .. } => Some(limit),
        Admitted::Pass { .. } | Admitted::ConcurrencyLimited => None,
    }
}

#[test]
fn a_request_that_one_limit_rejects_uses_no_token_of_another() {
    let routes = [route("orders", vec![limit(1, 4, LimitKey::Route), limit(1, 2, LimitKey::ClientIp)], None)];
    let mut admission = Admission::new(limits(&routes, None));
    assert_eq!([ask(&mut admission, 1, None), ask(&mut admission, 1, None)], [PASS; 2]);
    for _ in 0..9 {
        assert_eq!(limited_by(ask(&mut admission, 1, None)), Some(1));
    }
    assert_eq!([ask(&mut admission, 2, None), ask(&mut admission, 2, None)], [PASS; 2]);
    assert_eq!(limited_by(ask(&mut admission, 3, None)), Some(0));
}

#[test]
fn of_several_limits_that_are_used_up_the_longest_wait_is_told() {
    let slow = Limit { measure: rate(10, 60, 1), ..limit(1, 1, LimitKey::Route) };
    let slower = Limit { measure: rate(1, 3_600, 1), ..slow.clone() };
    let dry = Limit { dry_run: true, ..slower };
    for limits_of_route in [
        vec![limit(1, 1, LimitKey::Route), slow.clone(), dry.clone()],
        vec![limit(1, 1, LimitKey::ClientIp), slow.clone()],
        vec![limit(1, 1, LimitKey::Route), Limit { per: LimitKey::ClientIp, ..slow.clone() }],
    ] {
        let mut admission = Admission::new(limits(&[route("orders", limits_of_route, None)], None));
        let mut ask = |now: Instant| admission.admit(AT, IpAddr::from([10, 0, 0, 1]).into(), &|_| None, now);
        let now = Instant::from_nanos(1_000_000_000);
        assert!(matches!(ask(now), Admitted::Pass { .. }));
        let Admitted::RateLimited { limit: 1, quota } = ask(now) else { panic!("the second is the slower") };
        assert_eq!(quota.reset, Duration::from_secs(6));
        assert!(matches!(ask(now + quota.reset), Admitted::Pass { .. }), "and its wait is enough");
    }
}

#[test]
fn who_was_held_up_and_asks_with_a_late_clock_is_refused_only_until_it_asks_again() {
    let burst = 1_000;
    let per_second = |key| limit(1_000, burst, key);
    for limits_of_route in [
        vec![per_second(LimitKey::Route)],
        vec![per_second(LimitKey::ClientIp)],
        vec![per_second(LimitKey::Route), per_second(LimitKey::ClientIp)],
    ] {
        let shared = limits(&[route("orders", limits_of_route, None)], None);
        let mut workers = [Admission::new(Arc::clone(&shared)), Admission::new(shared)];
        let mut ask =
            |worker: usize, now: Instant| workers[worker].admit(AT, IpAddr::from([10, 0, 0, 1]).into(), &|_| None, now);
        let late = Instant::from_nanos(5_000_000_000);
        let now = late + Duration::from_millis(1_500);
        assert!(matches!(ask(0, now), Admitted::Pass { .. }));
        // the bucket is all but full, and the one who is late does not see it
        let refused = ask(1, late);
        assert_eq!(limited_by(refused), Some(0));
        assert!(!refused.is_outdated(late, late) && refused.is_outdated(late, now));
        assert!(matches!(ask(1, now), Admitted::Pass { .. }));
        // one that is empty is empty whoever asks
        let (mut passed, mut last) = (2, PASS);
        while !matches!(last, Admitted::RateLimited { .. }) {
            last = ask(passed % 2, now);
            passed += 1;
        }
        assert!(passed as u64 > burst * 9 / 10 && !last.is_outdated(now, now));
    }
    assert!(!PASS.is_outdated(Instant::default(), Instant::NEVER));
    assert!(!Admitted::ConcurrencyLimited.is_outdated(Instant::default(), Instant::NEVER));
}

#[test]
fn nobody_is_told_of_a_limit_in_dry_run() {
    let dry = Limit { dry_run: true, ..limit(7, 7, LimitKey::Route) };
    let limits = limits(&[route("orders", vec![dry, limit(5, 5, LimitKey::Route)], None)], None);
    assert_eq!(told(&limits), br#""orders-2";q=5;w=1"#);
}

#[test]
fn a_limit_by_header_counts_each_value_and_those_without_it_together() {
    let key = LimitKey::Header(http::HeaderName::from_static("x-api-key"));
    let mut admission = Admission::new(limits(&[route("orders", vec![limit(1, 1, key)], None)], None));
    for value in [Some(&b"a"[..]), Some(b"b"), None] {
        assert_eq!(ask(&mut admission, 1, value), PASS);
        assert_eq!(limited_by(ask(&mut admission, 2, value)), Some(0));
    }
}

#[test]
fn a_limit_in_dry_run_reports_and_lets_pass() {
    let dry = Limit { dry_run: true, ..limit(1, 1, LimitKey::Route) };
    let mut admission = Admission::new(limits(&[route("orders", vec![limit(1, 3, LimitKey::Route), dry], None)], None));
    assert_eq!(ask(&mut admission, 1, None), PASS);
    assert_eq!(ask(&mut admission, 1, None), Admitted::Pass { dry_run: 0b10 });
    assert_eq!(ask(&mut admission, 1, None), Admitted::Pass { dry_run: 0b10 });
    assert_eq!(limited_by(ask(&mut admission, 1, None)), Some(0));
}

#[test]
fn slots_are_taken_before_tokens_and_put_back_when_tokens_are_wanting() {
    let routes = [route("orders", vec![limit(1, 3, LimitKey::Route)], Some(2))];
    let mut admission = Admission::new(limits(&routes, None));
    assert_eq!([ask(&mut admission, 1, None), ask(&mut admission, 1, None)], [PASS; 2]);
    assert_eq!(ask(&mut admission, 1, None), Admitted::ConcurrencyLimited);
    admission.release(RouteId(0));
    assert_eq!(ask(&mut admission, 1, None), PASS, "the refused request took no token");
    admission.release(RouteId(0));
    for _ in 0..3 {
        assert_eq!(limited_by(ask(&mut admission, 1, None)), Some(0), "and this one keeps no slot");
    }
}

#[test]
fn workers_share_tokens_and_slots() {
    let shared = limits(&[route("orders", vec![limit(1, 3, LimitKey::Route)], Some(3))], None);
    let mut workers = [Admission::new(Arc::clone(&shared)), Admission::new(shared)];
    assert_eq!([0, 1, 0].map(|worker| ask(&mut workers[worker], 1, None)), [PASS; 3]);
    assert_eq!(ask(&mut workers[1], 1, None), Admitted::ConcurrencyLimited);
    workers[0].release(RouteId(0));
    assert_eq!(limited_by(ask(&mut workers[1], 1, None)), Some(0));
}

#[test]
fn a_reload_keeps_the_state_of_limits_that_did_not_change() {
    let kept =
        |burst| route("orders", vec![limit(1, burst, LimitKey::Route), limit(1, 1, LimitKey::ClientIp)], Some(1));
    let first = limits(&[kept(1)], None);
    let mut before = Admission::new(Arc::clone(&first));
    assert_eq!(ask(&mut before, 1, None), PASS);
    let same = limits(&[route("new", Vec::new(), None), kept(1)], Some(&first));
    let mut after = Admission::new(Arc::clone(&same));
    let now = Instant::from_nanos(1_000_000_000);
    let mut ask_second = |client: u8| {
        after.admit((RouteId(1), ListenerId(0), Met::All), IpAddr::from([10, 0, 0, client]).into(), &|_| None, now)
    };
    assert_eq!(ask_second(2), Admitted::ConcurrencyLimited, "the request of before is still in flight");
    before.release(RouteId(0));
    assert_eq!(limited_by(ask_second(2)), Some(0));
    let mut changed = Admission::new(limits(&[kept(9)], Some(&same)));
    assert_eq!(limited_by(ask(&mut changed, 1, None)), Some(1), "the client's limit is the same, the route's is new");
    assert_eq!(ask(&mut changed, 2, None), PASS);
}

#[test]
fn a_reload_that_changes_a_limit_converts_what_there_is() {
    let of = |burst, slots| route("orders", vec![limit(1, burst, LimitKey::Route)], Some(slots));
    let first = limits(&[of(5, 4)], None);
    let mut before = Admission::new(Arc::clone(&first));
    assert_eq!([(); 3].map(|()| ask(&mut before, 1, None)), [PASS; 3]);
    let prepared = limits(&[of(9, 2)], Some(&first));
    assert_eq!(ask(&mut before, 1, None), PASS, "what is only prepared changes nothing");
    prepared.commit(Instant::from_nanos(1_000_000_000));
    before.retire();
    let mut after = Admission::new(prepared);
    assert_eq!(ask(&mut after, 1, None), Admitted::ConcurrencyLimited, "four are in flight, of two");
    (0..3).for_each(|_| before.release(RouteId(0)));
    assert_eq!(ask(&mut after, 1, None), PASS, "one token was left");
    before.release(RouteId(0));
    assert_eq!(limited_by(ask(&mut after, 1, None)), Some(0), "and no more");
}

#[test]
fn no_token_is_there_twice_while_some_workers_still_have_the_limits_of_before() {
    let of = |burst| route("orders", vec![limit(1, burst, LimitKey::Route)], None);
    let first = limits(&[of(5)], None);
    let [mut slow, mut quick] = [(); 2].map(|()| Admission::new(Arc::clone(&first)));
    assert_eq!(ask(&mut slow, 1, None), PASS);
    let second = limits(&[of(9)], Some(&first));
    second.commit(Instant::from_nanos(1_000_000_000));
    assert_eq!(ask(&mut quick, 1, None), PASS, "nobody is refused whom the limit allows");
    quick = Admission::new(Arc::clone(&second));
    assert_eq!([ask(&mut slow, 1, None), ask(&mut quick, 1, None)], [PASS; 2]);
    let third = limits(&[of(7)], Some(&second));
    third.commit(Instant::from_nanos(1_000_000_000));
    quick = Admission::new(third);
    assert_eq!(ask(&mut slow, 1, None), PASS, "the fifth");
    for admission in [&mut slow, &mut quick] {
        assert_eq!(limited_by(ask(admission, 1, None)), Some(0));
    }
}

#[test]
fn a_limit_that_moves_to_another_row_keeps_its_tokens() {
    let (own, common) = (limit(1, 3, LimitKey::ClientIp), limit(1, 2, LimitKey::Route));
    let first = limits(&[route("orders", vec![own.clone(), common.clone()], None)], None);
    let mut before = Admission::new(Arc::clone(&first));
    assert_eq!([ask(&mut before, 1, None), ask(&mut before, 1, None)], [PASS; 2]);
    let new = limit(1, 9, LimitKey::Route);
    let second = limits(&[route("orders", vec![new, common, own], None)], Some(&first));
    second.commit(Instant::from_nanos(1_000_000_000));
    let mut after = Admission::new(second);
    assert_eq!(limited_by(ask(&mut after, 1, None)), Some(1));
    assert_eq!(limited_by(ask(&mut before, 1, None)), Some(1), "and stays where it was");
}

#[test]
fn the_fields_name_each_limit() {
    let routes = [route("orders", vec![limit(5, 5, LimitKey::Route), limit(1, 2, LimitKey::ClientIp)], None)];
    let limits = limits(&routes, None);
    assert_eq!(told(&limits), br#""orders-1";q=5;w=1, "orders-2";q=2;w=2"#);
    let mut out = Vec::new();
    limits.write_quota(1, Quota { remaining: 0, reset: Duration::from_millis(900) }, &mut out);
    assert_eq!(out, br#""orders-2";r=0;t=1"#);
}

/// The limits of a file, at `route` of it.
fn config_of(text: &str) -> config::Config {
    let routes = ["a", "b"]
        .map(|name| format!("[[route]]\nname = \"{name}\"\nmatch = {{ path = \"/{name}\" }}\nrespond = {{}}\n"));
    let text = text.replacen("A:", &routes[0], 1).replacen("B:", &routes[1], 1);
    config::check::parse(&text, "f").unwrap_or_else(|errors| panic!("{errors}\n{text}"))
}

fn of_file(text: &str, previous: Option<&Limits>) -> Arc<Limits> {
    let config = config_of(text);
    let table = previous.map_or_else(|| Arc::new(KeyTable::new(64, [3, 4])), |old| Arc::clone(&old.tables.rates));
    Arc::new(Limits::new(&config, table, 2, previous))
}

const LISTENER: &str = "[[listener]]\nname = \"web\"\nlisten = \"127.0.0.1:0\"\n";

#[test]
fn routes_that_name_a_limit_share_it_and_a_listener_that_does_counts_a_request_once() {
    let text = format!(
        "{LISTENER}limit = [\"all\"]\n[limit.all]\nrate = \"1/h\"\nburst = 4\n[limit.some]\nrate = \"1/h\"\nburst = 2\n\
         per = \"client_ip\"\nA:limit = [\"all\", \"some\"]\nB:limit = [{{ rate = \"9/s\" }}, \"some\"]\n"
    );
    let limits = of_file(&text, None);
    let mut workers = [Admission::new(Arc::clone(&limits)), Admission::new(Arc::clone(&limits))];
    let now = Instant::from_nanos(1_000_000_000);
    let mut ask = |worker: usize, route: u32, client: u8| {
        let caller = IpAddr::from([10, 0, 0, client]).into();
        let admitted = workers[worker].admit((RouteId(route), ListenerId(0), Met::All), caller, &|_| None, now);
        limited_by(admitted).map(|limit| limits.name(limit))
    };
    assert_eq!([ask(0, 0, 1), ask(1, 1, 1)], [None; 2]);
    assert_eq!([ask(0, 0, 1), ask(1, 1, 1)], [Some("some"); 2], "whichever route and worker it is");
    assert_eq!([ask(0, 0, 2), ask(1, 1, 3)], [None; 2], "what was refused has taken nothing");
    assert_eq!([ask(0, 0, 4), ask(1, 1, 5)], [Some("all"); 2], "four of four, once each");
    assert_eq!(told(&limits), br#""all";q=4;w=14400, "some";q=2;w=7200"#);
    // a reload in which other routes name them
    let other = format!(
        "{LISTENER}limit = [\"all\"]\n[limit.all]\nrate = \"1/h\"\nburst = 4\n[limit.some]\nrate = \"1/h\"\nburst = 2\n\
         per = \"client_ip\"\nB:limit = [\"some\"]\n"
    );
    let after = of_file(&other, Some(&limits));
    after.commit(now);
    let mut admission = Admission::new(Arc::clone(&after));
    let admitted = admission.admit(AT, IpAddr::from([10, 0, 0, 9]).into(), &|_| None, now);
    assert_eq!(limited_by(admitted).map(|limit| after.name(limit)), Some("all"));
    let left: HashMap<_, _> = after.left(now).collect();
    assert_eq!(left.keys().collect::<Vec<_>>(), ["[limit.all]"]);
}

#[test]
fn consumers_of_a_group_have_the_rate_of_its_tier_each() {
    let text = format!(
        "{LISTENER}[consumer.x]\ngroups = [\"free\", \"gold\"]\n[limit.plan]\nrate = \"1/h\"\nper = \"consumer\"\n\
         [limit.plan.tiers]\nnone = {{ rate = \"7/h\" }}\ngold = {{ rate = \"1/h\", burst = 3 }}\nA:limit = [\"plan\"]\n"
    );
    let limits = of_file(&text, None);
    let mut out = Vec::new();
    limits.write_policies((RouteId(0), ListenerId(0)), &[GroupId(1)], &mut out);
    assert_eq!(out, br#""plan";q=3;w=10800"#, "the tier's");
    let mut admission = Admission::new(limits);
    let mut passes = |consumer: &str, groups: &[GroupId]| {
        let client = IpAddr::from([10, 0, 0, 1]);
        let caller = Caller { client, consumer: Some(consumer), groups };
        let mut ask = || admission.admit(AT, caller, &|_| None, Instant::from_nanos(1_000_000_000));
        (0..9).take_while(|_| ask() == PASS).count()
    };
    let (free, gold) = (GroupId(0), GroupId(1));
    assert_eq!(
        [passes("a", &[free]), passes("b", &[free, gold]), passes("c", &[gold]), passes("d", &[])],
        [1, 3, 3, 1]
    );
}

#[test]
fn a_quota_of_a_tier_begins_anew_with_the_tier_s_window() {
    let text = format!(
        "{LISTENER}[consumer.x]\ngroups = [\"gold\"]\n[limit.plan]\nquota = \"5/hour\"\nper = \"consumer\"\n\
         [limit.plan.tiers]\ngold = {{ quota = \"1/day\" }}\nA:limit = [\"plan\"]\n"
    );
    let mut admission = Admission::new(of_file(&text, None));
    let caller = Caller { client: IpAddr::from([10, 0, 0, 1]), consumer: Some("a"), groups: &[GroupId(0)] };
    let at = Moment { now: Instant::from_nanos(9), unix: 5 * 86_400 + 4 * 3_600 };
    assert_eq!(admission.admit(AT, caller, &|_| None, at), PASS);
    let Admitted::RateLimited { quota, .. } = admission.admit(AT, caller, &|_| None, at) else { panic!("it passes") };
    assert_eq!(quota.reset, Duration::from_secs(20 * 3_600));
}

#[test]
fn what_is_counted_may_be_a_network_a_cookie_or_a_combination() {
    let ask = |per: &str, of: &[(&str, Option<&str>, bool)]| {
        let text = format!("{LISTENER}A:limit = [{{ rate = \"1/h\", per = {per} }}]\n");
        let mut admission = Admission::new(of_file(&text, None));
        for (row, (client, value, passes)) in of.iter().enumerate() {
            let client: IpAddr = client.parse().unwrap();
            let admitted = admission.admit(AT, client.into(), &|_| value.map(str::as_bytes), Instant::from_nanos(9));
            assert_eq!(admitted == PASS, *passes, "{per}, row {row}");
        }
    };
    let (a, b) = (Some("a"), Some("b"));
    ask("\"client_ip/24\"", &[("10.0.0.1", a, true), ("10.0.0.255", a, false), ("10.0.1.0", a, true)]);
    ask("\"client_ip/32\"", &[("10.0.0.1", a, true), ("10.0.0.2", a, true), ("::ffff:10.0.0.2", a, false)]);
    ask(
        "\"client_ip/1/48\"",
        &[("2001:db8:0:1::1", a, true), ("2001:db8:0:2::1", a, false), ("2001:db8:1::", a, true)],
    );
    ask("\"client_ip/1/128\"", &[("10.0.0.1", a, true), ("90.0.0.1", a, false), ("::1", a, true), ("::2", a, true)]);
    ask(
        "\"cookie:s\"",
        &[("10.0.0.1", a, true), ("10.0.0.2", a, false), ("10.0.0.2", b, true), ("10.0.0.2", None, true)],
    );
    let both = "[\"client_ip\", \"header:x-key\"]";
    ask(
        both,
        &[
            ("10.0.0.1", a, true),
            ("10.0.0.1", b, true),
            ("10.0.0.2", a, true),
            ("10.0.0.1", a, false),
            ("10.0.0.2", b, true),
        ],
    );
}

#[test]
fn limits_that_ask_for_nobody_can_be_met_before_the_others_and_the_slot_comes_last() {
    let limits_of = vec![limit(1, 2, LimitKey::ClientIp), limit(1, 1, LimitKey::Consumer)];
    let mut admission = Admission::new(limits(&[route("orders", limits_of, Some(1))], None));
    let mut ask = |met: Met, consumer: Option<&str>| {
        let caller = Caller { consumer, ..IpAddr::from([10, 0, 0, 1]).into() };
        admission.admit((RouteId(0), ListenerId(0), met), caller, &|_| None, Instant::from_nanos(1_000_000_000))
    };
    assert_eq!(ask(Met::Anybody, None), PASS);
    assert_eq!(ask(Met::Known, Some("a")), PASS, "takes the place");
    assert_eq!(ask(Met::Anybody, None), PASS, "asks for none");
    assert_eq!(limited_by(ask(Met::Anybody, None)), Some(0));
    assert_eq!(ask(Met::Known, Some("b")), Admitted::ConcurrencyLimited);
    admission.release(RouteId(0));
    let mut again = |consumer| {
        let caller = Caller { consumer: Some(consumer), ..IpAddr::from([10, 0, 0, 1]).into() };
        admission.admit((RouteId(0), ListenerId(0), Met::Known), caller, &|_| None, Instant::from_nanos(1_000_000_000))
    };
    assert_eq!(limited_by(again("a")), Some(1));
    assert_eq!(again("b"), PASS);
}

mod measures;
