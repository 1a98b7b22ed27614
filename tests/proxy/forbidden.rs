//! A process that may not use io_uring, as in containers with the default seccomp profile: it runs on epoll and says why.

use crate::support::gateway::{run_to_end, write_config};
use crate::support::{Driver, Gateway, Setup, Upstream, behind};
use std::os::raw::c_uint;

/// Runs `what` on a thread to which io_uring is forbidden with this error, as to every process that it starts (seccomp(2)).
fn without_io_uring(errno: i32, what: impl FnOnce() + Send + 'static) {
    let forbid = move || {
        let statement = |code: c_uint, jump: u8, k: u32| libc::sock_filter { code: code as u16, jt: 0, jf: jump, k };
        let mut program = [
            // the number of the system call stands first in `seccomp_data`
            statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0),
            statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 1, libc::SYS_io_uring_setup as u32),
            statement(libc::BPF_RET | libc::BPF_K, 0, libc::SECCOMP_RET_ERRNO | errno as u32),
            statement(libc::BPF_RET | libc::BPF_K, 0, libc::SECCOMP_RET_ALLOW),
        ];
        let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
        // SAFETY: no memory is involved in the first call, and the program that the second one is told of is live.
        let set = unsafe {
            [
                libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0),
                libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const filter),
            ]
        };
        assert_eq!(set, [0, 0], "{}", std::io::Error::last_os_error());
        assert_eq!(io_uring::IoUring::new(8).map(drop).unwrap_err().raw_os_error(), Some(errno));
        what();
    };
    std::thread::spawn(forbid).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
}

fn serves_on_epoll_and_says_why(errno: i32, why: &'static str) {
    let service = Upstream::always("here");
    let setup = Setup { workers: 2, config: &behind(&[&service], "", ""), ..Setup::default() };
    let file =
        |driver: &str| setup.file(Driver::Epoll).replace("driver = \"epoll\"", &format!("driver = \"{driver}\""));
    let (auto, io_uring) = (file("auto"), file("io_uring"));
    without_io_uring(errno, move || {
        let mut gateway = Gateway::start_file(tempfile::tempdir().unwrap(), &auto);
        for _ in 0..8 {
            assert_eq!(gateway.get("/").status, 200);
        }
        let log = gateway.running().stderr();
        let lines: Vec<_> = log.iter().filter(|line| line.contains("io_uring")).collect();
        assert!(lines.len() == 1 && lines[0].contains("all workers run on epoll") && lines[0].contains(why), "{log:?}");
        let workers = log.iter().filter(|line| line.contains("worker=") && line.contains("driver=epoll"));
        assert_eq!(workers.count(), 2, "{log:?}");

        let dir = tempfile::tempdir().unwrap();
        let said = run_to_end(&["run", "-c", &write_config(dir.path(), &io_uring)]);
        assert!(said.code != Some(0) && said.stderr.contains(why), "{said:?}");
        assert!(said.stderr.contains("driver = \"auto\" runs on epoll instead"), "{said:?}");
    });
}

#[test]
fn where_a_profile_forbids_io_uring_the_gateway_runs_on_epoll_and_says_what_to_change() {
    serves_on_epoll_and_says_why(libc::EPERM, "allow io_uring_setup, io_uring_enter and io_uring_register");
}

#[test]
fn where_a_profile_hides_io_uring_the_gateway_runs_on_epoll_and_says_what_to_change() {
    serves_on_epoll_and_says_why(libc::ENOSYS, "allow io_uring_setup, io_uring_enter and io_uring_register");
}
