//! The types behind one endpoint, as it told them itself.
//!
//! They are learned service by service when they are first needed, and kept. They are learned anew when
//! something says that another version of the service may be there: a connection that had to be made
//! again, a registration, a method that is gone, an answer that cannot be read. Whoever cannot be asked
//! anew is called by what is known of it: fields only ever come to a message. But what does not fit such
//! types may well fit the newer ones, so that nothing is refused by them.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use http::Uri;
use parking_lot::Mutex;
use prost_reflect::DescriptorPool;

use super::files::Files;
use super::reflection::{Reflection, Unlearned};
use super::types::no_service;
use crate::participant::handlers::Endpoint;
use crate::participant::line::Line;
use crate::tasks::Tasks;

/// Connections to one endpoint; see the other protocol.
const LINES: usize = 2;
/// How long types that are known wait for newer ones.
const RENEWAL_MAX: Duration = Duration::from_secs(1);
/// Most services of which a message about what there is tells the methods.
const TOLD_MAX: usize = 8;
/// Most types that nobody has, kept in mind so that they are not asked for again.
const ABSENT_MAX: usize = 256;
/// Services that every server has and no step calls.
const OF_EVERY_SERVER: &str = "grpc.";

/// The types known at a time.
#[derive(Debug)]
pub(super) struct Types {
    pub(super) pool: DescriptorPool,
    files: Files,
    /// Types that were asked for and are not to be had.
    absent: BTreeSet<String>,
    /// How many connections had been given up when they were learned.
    generation: u64,
    /// They are all that the service said when it was asked last, and it could be asked for everything.
    pub(super) is_confirmed: bool,
    /// Something says that there are newer ones.
    is_stale: AtomicBool,
}

/// Why there are no types.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum TypesError {
    /// The endpoint does not offer the service, and what it does.
    NoService(String),
    /// The endpoint could not be asked.
    NotLearned(String),
}

/// See the module.
#[derive(Debug)]
pub(super) struct Learned {
    origin: Uri,
    lines: [Line; LINES],
    next: AtomicUsize,
    types: Mutex<Option<Arc<Types>>>,
    /// Held while the endpoint is asked, so that it is asked once.
    asking: tokio::sync::Mutex<()>,
}

impl Learned {
    pub(super) fn new(endpoint: &Endpoint, tasks: &Tasks) -> Self {
        Self {
            origin: endpoint.uri(),
            lines: std::array::from_fn(|_| Line::new(endpoint, tasks)),
            next: AtomicUsize::new(0),
            types: Mutex::default(),
            asking: tokio::sync::Mutex::default(),
        }
    }

    pub(super) fn origin(&self) -> &Uri {
        &self.origin
    }

    /// The connection whose turn it is.
    pub(super) fn line(&self) -> &Line {
        &self.lines[self.next.fetch_add(1, Ordering::Relaxed) % LINES]
    }

    /// Has the types learned again when they are next needed.
    pub(super) fn forget(&self) {
        if let Some(known) = self.known() {
            known.is_stale.store(true, Ordering::Relaxed);
        }
    }

    /// What is known now, old or new.
    pub(super) fn known(&self) -> Option<Arc<Types>> {
        self.types.lock().clone()
    }

    /// Whether nothing was learned since.
    pub(super) fn is_still(&self, known: &Arc<Types>) -> bool {
        self.types.lock().as_ref().is_some_and(|now| Arc::ptr_eq(now, known))
    }

    /// The types of a service, and of `mentioned` what can be had.
    pub(super) async fn types(&self, service: &str, mentioned: &[String]) -> Result<Arc<Types>, TypesError> {
        if let Some(types) = self.fitting(service, mentioned) {
            return Ok(types);
        }
        let _asking = self.asking.lock().await;
        if let Some(types) = self.fitting(service, mentioned) {
            return Ok(types);
        }
        let known = self.known().filter(|known| known.files.defines(service));
        let Some(known) = known else { return self.ask(service, mentioned).await };
        let asked = tokio::time::timeout(RENEWAL_MAX, self.ask(service, mentioned)).await;
        match asked {
            Ok(Err(TypesError::NotLearned(cause))) => Ok(self.keep(&known, &cause)),
            Ok(answer) => answer,
            Err(_passed) => Ok(self.keep(&known, "no answer in time")),
        }
    }

    /// What is known, if nothing says that it is old and it has what is asked for.
    fn fitting(&self, service: &str, mentioned: &[String]) -> Option<Arc<Types>> {
        let known = self.fresh()?;
        let is_settled = |name: &String| known.files.defines(name) || known.absent.contains(name);
        let fits = known.files.defines(service) && mentioned.iter().all(is_settled);
        fits.then_some(known)
    }

    fn fresh(&self) -> Option<Arc<Types>> {
        let generation = self.generation();
        self.known().filter(|known| known.generation == generation && !known.is_stale.load(Ordering::Relaxed))
    }

    /// Grows with every connection that is given up: behind the next one may be another version.
    fn generation(&self) -> u64 {
        self.lines.iter().map(Line::generation).sum()
    }

    async fn ask(&self, service: &str, mentioned: &[String]) -> Result<Arc<Types>, TypesError> {
        let generation = self.generation();
        // What is added to unconfirmed types would not confirm the rest of them.
        let known = self.fresh().filter(|known| known.is_confirmed);
        let (mut files, mut absent) =
            known.map_or_else(Default::default, |known| (known.files.clone(), known.absent.clone()));
        let mut reflection = Reflection::of(&self.lines[0], &self.origin);
        match reflection.add(&mut files, service).await {
            Ok(()) => {}
            Err(Unlearned::NotFound) => return Err(no_such(&mut reflection, service).await),
            Err(unlearned) => return Err(TypesError::NotLearned(unlearned.cause())),
        }
        let mut is_confirmed = true;
        for name in mentioned {
            if files.defines(name) || absent.contains(name) {
                continue;
            }
            if let Err(unlearned) = reflection.add(&mut files, name).await {
                // Only "not found" says that there is no such type.
                is_confirmed &= unlearned == Unlearned::NotFound;
                if absent.len() < ABSENT_MAX {
                    absent.insert(name.clone());
                }
            }
        }
        let pool = files.pool().map_err(TypesError::NotLearned)?;
        let is_stale = AtomicBool::new(false);
        Ok(self.put(Types { pool, files, absent, generation, is_confirmed, is_stale }))
    }

    /// Goes on with what is known: it is not asked for again before something new is heard, or something
    /// does not fit.
    fn keep(&self, known: &Types, cause: &str) -> Arc<Types> {
        tracing::warn!(endpoint = %self.origin, cause, "a service's types could not be learned anew; the known ones are used");
        let (pool, files, absent) = (known.pool.clone(), known.files.clone(), known.absent.clone());
        let (generation, is_stale) = (self.generation(), AtomicBool::new(false));
        self.put(Types { pool, files, absent, generation, is_confirmed: false, is_stale })
    }

    fn put(&self, types: Types) -> Arc<Types> {
        let types = Arc::new(types);
        *self.types.lock() = Some(Arc::clone(&types));
        types
    }
}

/// What the server offers instead, with the methods of the first few services.
async fn no_such(reflection: &mut Reflection<'_>, service: &str) -> TypesError {
    let offered = match reflection.services().await {
        Ok(offered) => offered,
        Err(unlearned) => return TypesError::NotLearned(unlearned.cause()),
    };
    if offered.iter().any(|name| name == service) {
        return TypesError::NotLearned(format!(
            "its server reflection lists {service} and does not show its types; see what the service logs, or \
             register it with its descriptor set"
        ));
    }
    let offered: Vec<String> =
        offered.into_iter().filter(|name| !name.starts_with(OF_EVERY_SERVER)).collect();
    let mut files = Files::default();
    for name in offered.iter().take(TOLD_MAX) {
        if let Err(unlearned) = reflection.add(&mut files, name).await {
            tracing::debug!(service = name, cause = unlearned.cause(), "its methods are not told");
        }
    }
    let pool = files.pool().unwrap_or_default();
    TypesError::NoService(no_service(service, &offered, pool.services()))
}
