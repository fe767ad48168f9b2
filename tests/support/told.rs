//! A store that saves when it is told to.

#![allow(dead_code, reason = "each test file uses a part")]

use live_likes::{Error, Result, Store};
use std::sync::mpsc::{Receiver, Sender, channel};

/// A store in memory. Each call waits for a word; when nobody is left to say one, it saves at once.
pub struct Told {
    total: u64,
    asked: Sender<u64>,
    word: Receiver<Result<()>>,
}

/// The one who tells it.
pub struct Teller {
    asked: Receiver<u64>,
    word: Sender<Result<()>>,
}

pub fn told() -> (Told, Teller) {
    let (ask, asked) = channel();
    let (say, word) = channel();
    (Told { total: 0, asked: ask, word }, Teller { asked, word: say })
}

impl Store for Told {
    fn total(&mut self) -> u64 {
        self.total
    }

    fn add(&mut self, likes: u64) -> Result<u64> {
        let _ = self.asked.send(likes);
        self.word.recv().unwrap_or(Ok(()))?;
        self.total += likes;
        Ok(self.total)
    }
}

impl Teller {
    /// Waits for a call: how many likes it is to save.
    pub fn asked(&self) -> u64 {
        self.asked.recv_timeout(crate::running::PATIENCE).expect("the store was to be called")
    }

    pub fn save(&self) {
        self.word.send(Ok(())).unwrap();
    }

    pub fn fail(&self, reason: &str) {
        self.word.send(Err(Error::NotSaved(reason.to_owned()))).unwrap();
    }
}
