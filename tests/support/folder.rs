//! A folder of a test's own, gone when the test is over.

#![allow(dead_code, reason = "each test file uses a part")]

use live_likes::Likes;
use std::{
    fs,
    ops::Deref,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

pub struct Folder {
    path: PathBuf,
    mounts: AtomicU32,
}

impl Folder {
    #[allow(clippy::new_without_default)]
    pub fn new() -> Self {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let name = format!("live-likes-test-{}-{}", std::process::id(), MADE.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        let _ = fs::remove_dir_all(&path); // left by a process that was killed, and had the same number
        fs::create_dir(&path).unwrap();
        Self { path, mounts: AtomicU32::new(0) }
    }

    /// A small file system in memory, or `None` where this user may not mount one.
    pub fn mounted() -> Option<Self> {
        Self::mounted_of(64)
    }

    /// The same, of so many KiB.
    pub fn mounted_of(kib: u32) -> Option<Self> {
        let folder = Self::new();
        if !folder.mount(&["-t", "tmpfs", "-o", &format!("size={kib}k"), "live-likes"]) {
            eprintln!("nothing is tested here: this user may not mount a file system");
            return None;
        }
        folder.mounts.store(1, Ordering::Relaxed);
        Some(folder)
    }

    /// Puts a read-only view over a mounted folder. (It cannot be made read-only itself while a file in it is open.)
    pub fn make_read_only(&self) {
        assert!(self.mount(&["--bind", &self.path.to_string_lossy()]));
        self.mounts.store(2, Ordering::Relaxed);
        assert!(self.mount(&["-o", "remount,bind,ro"]));
    }

    /// Takes it away.
    pub fn make_writable(&self) {
        self.unmount();
    }

    fn mount(&self, arguments: &[&str]) -> bool {
        Command::new("mount").args(arguments).arg(&self.path).output().is_ok_and(|output| output.status.success())
    }

    fn unmount(&self) {
        let deadline = Instant::now() + Duration::from_secs(60);
        // Whoever opens something in it just then holds it for a moment.
        while !Command::new("umount").arg(&self.path).status().is_ok_and(|status| status.success()) {
            assert!(Instant::now() < deadline, "it cannot be unmounted");
        }
        self.mounts.fetch_sub(1, Ordering::Relaxed);
    }

    /// A counter of so many likes, in this folder's `db.txt`.
    pub fn counter(&self, count: u64) -> Likes {
        fs::write(self.join("db.txt"), count.to_string()).unwrap();
        Likes::open(self.join("db.txt")).unwrap()
    }

    /// What a process that comes after a power cut would find in its `db.txt`.
    pub fn saved(&self) -> u64 {
        fs::read_to_string(self.join("db.txt")).unwrap().parse().unwrap()
    }

    /// The names in it.
    pub fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.path).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

impl Deref for Folder {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        while self.mounts.load(Ordering::Relaxed) > 0 {
            self.unmount();
        }
        let _ = fs::remove_dir_all(&self.path);
    }
}
