//! Names over time: what is asked anew, and what is counted on.

use super::*;
use crate::config;
use crate::observe::stats::Stats;

fn config(endpoints: &str) -> Config {
    let text = format!(
        "[[listener]]\nlisten = \"127.0.0.1:80\"\n[[route]]\nupstream = \"a\"\n[upstream.a]\nendpoints = [{endpoints}]\n"
    );
    config::parse(&text, "test").unwrap_or_else(|errors| panic!("{errors}"))
}

fn host(host: &str) -> Lookup {
    Lookup::Host { host: host.to_owned(), port: 80 }
}

/// As if it had been answered just now, for an hour.
fn learn(names: &mut Names, lookup: &Lookup) {
    let told = config::Told { rank: 0, address: "10.0.0.1:80".parse().unwrap(), weight: None };
    names.due.clear();
    names.names.get_mut(lookup).unwrap().is_under_way = true;
    names.on_end(lookup, (Learned::Endpoints(vec![told], Duration::from_secs(3_600)), None), None);
}

#[test]
fn what_changes_about_the_system_s_files_is_followed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("hosts");
    std::fs::write(&path, "one").unwrap();
    let mut names = Names::new(&config("{ address = \"a.test:80\" }"));
    let mut system = Followed::default();
    system.add(&path, None);
    names.system = system.now();
    let lookup = host("a.test");
    learn(&mut names, &lookup);
    let due = |names: &Names| names.names[&lookup].name.due();
    let now = clock::now();
    let at = |looks: u32| now + SYSTEM_LOOK * looks;
    names.look_at_system(at(1));
    assert!(due(&names) > at(100), "nothing has changed");
    std::fs::write(&path, "another").unwrap();
    names.look_at_system(at(1));
    assert!(due(&names) > at(100), "it is not looked at all the time");
    names.look_at_system(at(2));
    assert_eq!((due(&names), names.due.peek().unwrap().0.0), (at(2), at(2)));
    learn(&mut names, &lookup);
    std::fs::write(&path, "a third one").unwrap();
    names.names.get_mut(&lookup).unwrap().is_under_way = true;
    names.look_at_system(at(3));
    names.on_end(&lookup, (Learned::Unknown, None), None);
    assert!(due(&names) <= clock::now(), "who was being asked is the one before");
    learn(&mut names, &lookup);
    names.rules.servers = Some(vec!["127.0.0.1:53".parse().unwrap()]);
    std::fs::write(&path, "4").unwrap();
    names.look_at_system(at(4));
    assert!(due(&names) > at(100), "servers of the file do not depend on it");
}

#[test]
fn lookups_of_a_name_that_returns_are_counted_on_and_nothing_is_left_of_the_others() {
    let (both, one) =
        (config("{ address = \"a.test:80\" }, { address = \"b.test:80\" }"), config("{ address = \"b.test:80\" }"));
    let stats = Stats::new(&Arc::new(both.clone()), 1);
    let mut names = Names::new(&both);
    let (gone, stays) = (host("a.test"), host("b.test"));
    for round in 1..=3 {
        learn(&mut names, &gone);
        names.keep_only(&one, &stats.control);
        let due: Vec<_> = names.due.iter().map(|Reverse((_, lookup))| lookup.clone()).collect();
        assert_eq!((names.names.len(), due), (1, vec![stays.clone()]));
        names.add(&both);
        names.keep_only(&both, &stats.control);
        assert_eq!(names.names[&gone].lookups[LookupResult::Answered.index()], round);
        assert!(names.gone.is_empty());
    }
}
