//! A small file system that tests fill up and make read-only.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

const SIZE: &str = "size=16m";

/// A small file system of its own, which goes away with the test.
pub struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    /// `None` where it may not be mounted, which is told.
    pub fn mount() -> Option<Self> {
        let disk = Self(tempfile::tempdir().unwrap());
        let mount = Command::new("mount").args(["-t", "tmpfs", "-o", SIZE, "none"]).arg(disk.0.path()).output();
        if !mount.is_ok_and(|out| out.status.success()) {
            eprintln!("SKIPPED: cannot mount a small tmpfs here");
            return None;
        }
        Some(disk)
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// Lets nobody write any more. No file may be open for writing just then; gives whether it worked.
    pub fn read_only(&self) -> bool {
        self.remount("remount,ro")
    }

    pub fn writable(&self) {
        assert!(self.remount("remount,rw"));
    }

    fn remount(&self, options: &str) -> bool {
        let mount = Command::new("mount").args(["-o", options]).arg(self.path()).output();
        mount.is_ok_and(|out| out.status.success())
    }

    fn ballast(&self) -> PathBuf {
        self.0.path().join("ballast")
    }

    /// Takes all the room that there is.
    pub fn fill(&self) {
        let mut file = OpenOptions::new().create(true).append(true).open(self.ballast()).unwrap();
        for piece in [1 << 20, 4_096] {
            while file.write_all(&vec![1; piece]).is_ok() {}
        }
    }

    pub fn free(&self) {
        fs::remove_file(self.ballast()).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: files of the test may still be open.
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}
