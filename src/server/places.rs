//! How many connections an address has.

use crate::{
    likes::sync::{Mutex, lock},
    server::rate::subnet,
};
use std::{collections::HashMap, net::IpAddr, sync::Arc};

/// The connections of each address.
#[derive(Debug)]
pub(crate) struct Places {
    most: usize,
    taken: Mutex<HashMap<IpAddr, usize>>,
}

/// One of them, given back when this is dropped.
pub(crate) struct Place {
    places: Arc<Places>,
    address: IpAddr,
}

impl Places {
    pub(crate) fn new(most: usize) -> Self {
        Self { most, taken: Mutex::default() }
    }

    /// Takes a place of an address, if it has fewer than it may.
    pub(crate) fn take(self: &Arc<Self>, address: IpAddr) -> Option<Place> {
        let address = subnet(address);
        let mut taken = lock(&self.taken);
        let of_this = taken.entry(address).or_default();
        if *of_this >= self.most {
            return None;
        }
        *of_this += 1;
        Some(Place { places: self.clone(), address })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = lock(&self.places.taken);
        if let Some(of_this) = taken.get_mut(&self.address) {
            *of_this -= 1;
            if *of_this == 0 {
                taken.remove(&self.address);
            }
        }
    }
}
