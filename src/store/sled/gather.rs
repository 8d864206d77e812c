//! When the writer waits for company. Each batch costs a sync and the waking of the engine's
//! threads, whatever is in it: when much is written at once, a moment's wait makes fewer and
//! larger batches; when little is, it would only be a delay.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::sync::mpsc;

use super::writer::Request;

/// Requests in one batch.
const GROUP_REQUESTS_MAX: usize = 256;
/// Bytes after which a batch takes nothing further.
const GROUP_BYTES_MAX: usize = 4 * 1024 * 1024;
/// A batch of so many saga writes is waited behind.
const BUSY_WRITES: usize = 12;
/// How long, at most.
const WAIT: Duration = Duration::from_micros(300);

/// Takes requests from the queue, a group at a time.
#[derive(Debug, Default)]
pub struct Gather {
    /// Saga writes in the last group that had any.
    last_writes: usize,
}

impl Gather {
    /// The next group, in order; `None` when every handle is gone and nothing waits.
    pub fn next(&mut self, requests: &mut mpsc::Receiver<Request>) -> Option<VecDeque<Request>> {
        let mut group = VecDeque::from([requests.blocking_recv()?]);
        let mut bytes = group.iter().map(Request::bytes).sum::<usize>();
        drain(requests, &mut group, &mut bytes);
        if self.last_writes >= BUSY_WRITES && writes(&group) < 2 * self.last_writes {
            std::thread::sleep(WAIT);
            drain(requests, &mut group, &mut bytes);
        }
        if writes(&group) > 0 {
            self.last_writes = writes(&group);
        }
        Some(group)
    }
}

fn writes(group: &VecDeque<Request>) -> usize {
    group.iter().map(Request::writes).sum()
}

fn drain(requests: &mut mpsc::Receiver<Request>, group: &mut VecDeque<Request>, bytes: &mut usize) {
    while group.len() < GROUP_REQUESTS_MAX && *bytes < GROUP_BYTES_MAX {
        let Ok(next) = requests.try_recv() else { break };
        *bytes += next.bytes();
        group.push_back(next);
    }
}
