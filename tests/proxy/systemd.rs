//! What systemd is told, and the sockets that it gives; its part is played by the test, which speaks as sd_notify(3) and sd_listen_fds(3) say.

use crate::support::{Client, Driver, Gateway, Setup, Upstream, behind, eventually, on_both_drivers};
use std::net::TcpListener;
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};

/// Where the gateway tells what it has to tell.
struct Systemd {
    socket: UnixDatagram,
    folder: tempfile::TempDir,
}

impl Systemd {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = UnixDatagram::bind(folder.path().join("notify")).unwrap();
        socket.set_nonblocking(true).unwrap();
        Self { socket, folder }
    }

    /// The binary as this one would start it.
    fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ringgate"));
        command.env("NOTIFY_SOCKET", self.folder.path().join("notify"));
        command
    }

    /// Waits for the next message but those of the watchdog.
    fn hears(&self) -> String {
        eventually("systemd is told", || {
            let mut message = [0; 512];
            let length = self.socket.recv(&mut message).ok()?;
            let text = String::from_utf8_lossy(&message[..length]).trim().to_owned();
            (text != "WATCHDOG=1").then_some(text)
        })
    }

    /// Waits for one of the watchdog.
    fn is_fed(&self) {
        eventually("the watchdog is fed", || {
            let mut message = [0; 512];
            let length = self.socket.recv(&mut message).ok()?;
            message[..length].starts_with(b"WATCHDOG=1").then_some(())
        });
    }
}

on_both_drivers! {
    fn systemd_hears_of_the_start_of_reloads_of_an_upgrade_and_of_the_end(driver: Driver) {
        let systemd = Systemd::new();
        let upstream = Upstream::always("well");
        let config = behind(&[&upstream], "", "");
        let mut command = systemd.command();
        command.env("WATCHDOG_USEC", "200000");
        let setup = Setup { config: &config, ..Setup::default() };
        let mut gateway = Gateway::start_by(command, driver, &setup, Stdio::null());
        assert_eq!(systemd.hears(), "READY=1");
        systemd.is_fed();
        gateway.running().signal("HUP");
        let reloading = systemd.hears();
        assert!(reloading.starts_with("RELOADING=1\nMONOTONIC_USEC="), "{reloading}");
        assert_eq!(systemd.hears(), "READY=1");
        let next = gateway.upgrade();
        assert_eq!(systemd.hears(), format!("MAINPID={next}"));
        assert!(gateway.running().wait().success());
        systemd.is_fed();
        assert_eq!(Client::connect(gateway.address("admin")).request("POST", "/drain", &[], b"").status, 202);
        assert_eq!(systemd.hears(), "STOPPING=1");
    }

    fn a_socket_that_systemd_gives_is_listened_on(driver: Driver) {
        let upstream = Upstream::always("well");
        let config = behind(&[&upstream], "", "");
        for (names, workers) in [("edge", 1), ("unknown", 3)] {
            let given = TcpListener::bind("127.0.0.1:0").unwrap();
            let address = given.local_addr().unwrap().to_string();
            let mut command = Command::new("sh");
            let script = format!("LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES={names} exec \"$0\" \"$@\" 3<&0 </dev/null");
            command.args(["-c", &script, env!("CARGO_BIN_EXE_ringgate")]);
            // by its name the address does not matter, by its address the name does not
            let listen = if names == "edge" { "127.0.0.1:0" } else { &address };
            let setup = Setup { workers, listen, config: &config, ..Setup::default() };
            let mut gateway = Gateway::start_by(command, driver, &setup, std::os::fd::OwnedFd::from(given));
            assert_eq!(gateway.address("edge"), address);
            assert!((0..8).all(|_| gateway.get("/").text() == "well"));
            gateway.upgrade();
            assert!((0..8).all(|_| gateway.get("/").text() == "well"));
            assert!(gateway.running().wait().success());
        }
    }
}
