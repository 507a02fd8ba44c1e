//! The connected instances of the application, and which of them gets the next message.

use core::cmp::Reverse;

use super::credit::Credit;
use super::effect::ConnectError;
use super::lease::Leases;
use super::limits::{INSTANCE_SPAN_MAX, INSTANCES_MAX};
use crate::ids::InstanceNo;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Instance {
    pub(super) no: InstanceNo,
    pub(super) credit: Credit,
    pub(super) leases: Leases,
    /// Takes nothing more.
    pub(super) closing: bool,
    /// When it was served last, counted in messages handed over.
    served: u64,
}

impl Instance {
    fn has_room(&self, in_flight_max: u32) -> bool {
        !self.closing
            && self.credit.is_open()
            && self.leases.live() < in_flight_max
            && self.leases.span() < INSTANCE_SPAN_MAX
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Instances {
    /// Ascending by number. They are few and looked at for each message, hence no tree.
    list: Vec<Instance>,
    served: u64,
}

impl Instances {
    pub(super) fn connect(&mut self, no: InstanceNo) -> Result<(), ConnectError> {
        let Err(index) = self.position(no) else {
            return Err(ConnectError::AlreadyConnected);
        };
        if self.list.len() >= INSTANCES_MAX {
            return Err(ConnectError::TooManyInstances);
        }
        let instance = Instance {
            no,
            credit: Credit::default(),
            leases: Leases::new(),
            closing: false,
            served: 0,
        };
        self.list.insert(index, instance);
        Ok(())
    }

    fn position(&self, no: InstanceNo) -> Result<usize, usize> {
        self.list.binary_search_by_key(&no, |instance| instance.no)
    }

    pub(super) fn len(&self) -> usize {
        self.list.len()
    }

    pub(super) fn get(&self, no: InstanceNo) -> Option<&Instance> {
        self.position(no).ok().map(|index| &self.list[index])
    }

    pub(super) fn get_mut(&mut self, no: InstanceNo) -> Option<&mut Instance> {
        self.position(no).ok().map(|index| &mut self.list[index])
    }

    pub(super) fn remove(&mut self, no: InstanceNo) -> Option<Instance> {
        self.position(no).ok().map(|index| self.list.remove(index))
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Instance> {
        self.list.iter()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Instance> {
        self.list.iter_mut()
    }

    pub(super) fn any_has_room(&self, in_flight_max: u32) -> bool {
        self.list.iter().any(|instance| instance.has_room(in_flight_max))
    }

    /// The instance that holds fewest deliveries among those that can take a message of this size; among equals the one with most free
    /// bytes, then the one longest unserved. So one that grants without end and finishes nothing gets no more than its share, whatever
    /// it grants. A message above the credit of all goes to one that holds nothing.
    pub(super) fn pick(&mut self, size: u64, in_flight_max: u32) -> Option<&mut Instance> {
        let mut best = None;
        for (index, instance) in self.list.iter().enumerate() {
            let covered = instance.credit.covers(size);
            if !instance.has_room(in_flight_max) || !(covered || instance.leases.live() == 0) {
                continue;
            }
            let rank = (
                covered,
                Reverse(instance.leases.live()),
                instance.credit.bytes(),
                Reverse(instance.served),
            );
            if best.is_none_or(|(_, best_rank)| rank > best_rank) {
                best = Some((index, rank));
            }
        }
        let (index, _) = best?;
        self.served += 1;
        let chosen = &mut self.list[index];
        chosen.served = self.served;
        Some(chosen)
    }
}
