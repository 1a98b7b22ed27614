//! The generator's priority among what else runs on its core.

use thread_priority::ThreadPriority;
use thread_priority::unix::{
    RealtimeThreadSchedulePolicy, ScheduleParams, ThreadSchedulePolicy, set_thread_priority_and_policy,
    thread_native_id, thread_schedule_policy,
};

/// Who goes before whom, and all of them before ordinary threads: real-time priorities, which are from 1 to 99 (sched(7)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precedence {
    /// Sends what is due.
    Generator = 1,
    /// Looks whether the core stands still.
    Watch = 2,
}

/// Goes before every ordinary thread of its core from now on (real-time priority), where that is allowed: who is late
/// by the time slice of another process measures that process. It sleeps whenever nothing is due, so the others get what is left. Says whether
/// it is so.
pub fn take_precedence(precedence: Precedence) -> bool {
    let priority = ThreadPriority::from_posix(ScheduleParams { sched_priority: precedence as i32 });
    let policy = ThreadSchedulePolicy::Realtime(RealtimeThreadSchedulePolicy::Fifo);
    set_thread_priority_and_policy(thread_native_id(), priority, policy).is_ok()
}

/// From so many cores on the generator has one of its own whoever is measured. On fewer it may share one with the services, which would be
/// stopped for every answer that comes: measured on two cores, both need a third more CPU time a request then, and a queue that has formed stays.
const CORES_MIN: usize = 4;

/// Takes precedence for a generator's thread where that does no harm: where its core is known to be its own (it `is_alone`), or there are many; whoever has started it may have given it anyway (`chrt -f 1`). Says
/// whether it is so.
pub fn take_for_generator(cores: usize, is_alone: bool) -> bool {
    ((is_alone || cores >= CORES_MIN) && take_precedence(Precedence::Generator))
        || matches!(thread_schedule_policy(), Ok(ThreadSchedulePolicy::Realtime(_)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_may_goes_before_the_others() {
        let told = std::thread::spawn(|| (take_precedence(Precedence::Generator), thread_schedule_policy().unwrap()))
            .join()
            .unwrap();
        let is_realtime = matches!(told.1, ThreadSchedulePolicy::Realtime(RealtimeThreadSchedulePolicy::Fifo));
        assert_eq!(told.0, is_realtime, "it says what it is");
    }

    #[test]
    fn where_services_share_its_core_it_goes_before_nobody() {
        let told = std::thread::spawn(|| take_for_generator(CORES_MIN - 1, false)).join().unwrap();
        assert_eq!(told, matches!(thread_schedule_policy(), Ok(ThreadSchedulePolicy::Realtime(_))));
    }
}
