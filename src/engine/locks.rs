//! The lock table that the shards share, and the tickets in it.
//!
//! A ticket is drawn and enqueued in one step, so its number is its place in every queue. It is
//! given back only behind the commit that ended its use, or once it is certain that its start was
//! never stored.

use parking_lot::Mutex;

use crate::saga::ids::{LockKey, SagaId};
use crate::saga::locks::LockTable;
use crate::store::LockTicket;

/// The queues of all lock keys.
#[derive(Debug)]
pub(super) struct Locks(Mutex<Queues>);

#[derive(Debug)]
struct Queues {
    table: LockTable,
    next_ticket: u64,
}

impl Locks {
    /// Takes up the tickets the store kept, in their order.
    pub(super) fn rebuild(mut tickets: Vec<LockTicket>) -> Self {
        tickets.sort_by_key(|ticket| ticket.ticket);
        let mut table = LockTable::default();
        let mut next_ticket = 1;
        for ticket in tickets {
            next_ticket = ticket.ticket + 1;
            table.enqueue(ticket.ticket, ticket.saga, &ticket.keys);
        }
        Self(Mutex::new(Queues { table, next_ticket }))
    }

    /// Draws a ticket for `saga`; whether it holds all its keys at once.
    pub(super) fn enqueue(&self, saga: &SagaId, keys: &[LockKey]) -> (LockTicket, bool) {
        let mut queues = self.0.lock();
        let ticket = queues.next_ticket;
        queues.next_ticket += 1;
        let held = queues.table.enqueue(ticket, saga.clone(), keys);
        (LockTicket { ticket, saga: saga.clone(), keys: keys.to_vec() }, held)
    }

    /// Gives back the ticket of `saga`, if it has one; the sagas that hold all their keys now.
    pub(super) fn release(&self, saga: &SagaId) -> Vec<SagaId> {
        let mut queues = self.0.lock();
        match queues.table.ticket_of(saga) {
            Some(ticket) => queues.table.release(ticket),
            None => Vec::new(),
        }
    }

    /// The number of the saga's ticket.
    pub(super) fn ticket_of(&self, saga: &SagaId) -> Option<u64> {
        self.0.lock().table.ticket_of(saga)
    }

    /// Whether the saga holds all its keys.
    pub(super) fn holds(&self, saga: &SagaId) -> bool {
        let queues = self.0.lock();
        queues.table.ticket_of(saga).is_some_and(|ticket| queues.table.holds(ticket))
    }

    /// A key that another saga holds and this one waits for.
    pub(super) fn blocked_on(&self, saga: &SagaId) -> Option<LockKey> {
        let queues = self.0.lock();
        queues.table.ticket_of(saga).and_then(|ticket| queues.table.blocked_on(ticket).cloned())
    }
}
