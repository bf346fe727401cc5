//! A mosquitto of our own on a free port; skipped with a visible line where there is none.
#![allow(dead_code, missing_docs, unreachable_pub)]

use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const PROGRAM: &str = "/usr/sbin/mosquitto";

pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

pub struct Mosquitto {
    child: Child,
    pub port: u16,
    pub dir: tempfile::TempDir,
}

impl Mosquitto {
    /// `None` where mosquitto is not installed. `{dir}` in the configuration is its folder.
    pub fn start(extra: &str) -> Option<Self> {
        Self::start_in(tempfile::tempdir().unwrap(), extra)
    }

    pub fn start_in(dir: tempfile::TempDir, extra: &str) -> Option<Self> {
        if !Path::new(PROGRAM).exists() {
            super::skip(&format!("{PROGRAM} is not installed"));
            return None;
        }
        let extra = extra.replace("{dir}", dir.path().to_str().unwrap());
        // Somebody else may take the port between finding and using it.
        for _ in 0..5 {
            let port = free_port();
            let config = format!("listener {port} 127.0.0.1\nuser root\nmax_queued_messages 0\n{extra}\n");
            std::fs::write(dir.path().join("mosquitto.conf"), config).unwrap();
            if let Some(child) = Self::spawn(&dir, port) {
                return Some(Self { child, port, dir });
            }
        }
        panic!("mosquitto does not start with\n{extra}");
    }

    /// `None` where it ends instead of listening.
    fn spawn(dir: &tempfile::TempDir, port: u16) -> Option<Child> {
        let mut command = Command::new(PROGRAM);
        command.arg("-c").arg(dir.path().join("mosquitto.conf")).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let until = Instant::now() + Duration::from_secs(10);
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            if child.try_wait().unwrap().is_some() {
                return None;
            }
            assert!(Instant::now() < until, "mosquitto does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        Some(child)
    }

    pub fn url(&self) -> String {
        format!("mqtt://127.0.0.1:{}", self.port)
    }

    pub fn restart(&mut self) {
        self.stop();
        self.start_again();
    }

    pub fn stop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGTERM: it writes what it keeps before it ends, where `persistence` says so.
    pub fn terminate(&mut self) {
        self.signal("-TERM");
        self.child.wait().unwrap();
    }

    pub fn start_again(&mut self) {
        self.child = Self::spawn(&self.dir, self.port).expect("the port is still ours");
    }

    fn signal(&self, name: &str) {
        assert!(Command::new("kill").args([name, &self.child.id().to_string()]).status().unwrap().success());
    }

    pub fn sigstop(&self) {
        self.signal("-STOP");
    }

    pub fn sigcont(&self) {
        self.signal("-CONT");
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
