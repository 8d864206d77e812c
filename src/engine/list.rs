//! Lists of sagas: pages of what matches a filter, and exact totals.
//!
//! The store gives rows by creation time within the filter's bounds; a saga in memory is judged
//! and shown as it was published last. A page may be short and still name a next one: a rare match
//! is looked for in steps, so that no request holds the store for long.

use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use super::Engine;
use super::candidate::{CountedSagas, SagaInView, SummaryRow};
use super::error::{EngineError, Violation};
use super::request::{ListAnswer, ListRequest};
use crate::saga::filter::{Candidate, Filter};
use crate::saga::ids::{SagaId, Timestamp};
use crate::saga::state::Saga;
use crate::store::{ListQuery, Summary};

/// Rows read from the store at once.
const ROWS_AT_ONCE: usize = 512;
/// Rows looked at for one page; a page that would need more ends where it stands.
const ROWS_A_PAGE_MAX: usize = 50_000;
/// Bytes of a token's hash, as hexadecimal digits.
const TOKEN_HASH_CHARS: usize = 16;

/// A place between two rows.
type Place = (Timestamp, SagaId);

impl Engine {
    /// A page of the sagas that match. Sagas that cannot be read are left out here; they are among
    /// what waits for an operator.
    ///
    /// # Errors
    /// `Invalid` for a bad filter (with its position) or a token of another list; `Unavailable`.
    pub async fn list(&self, request: ListRequest) -> Result<ListAnswer, EngineError> {
        let filter = Filter::parse(&request.filter)
            .map_err(|error| EngineError::Invalid(vec![Violation::new("filter", error.to_string())]))?;
        let scan =
            Scan { engine: self, filter, now: self.shared.clock.now(), oldest_first: request.oldest_first };
        let stamp = stamp(&request.filter, request.oldest_first);
        let after = place_of(&request.page_token, &stamp)?;
        let (found, behind) = scan.page(after, request.page_size.max(1)).await?;
        let total = scan.total(request.with_total).await?;
        Ok(ListAnswer {
            sagas: found.into_iter().map(|saga| self.view(saga)).collect(),
            next_page_token: behind.map_or_else(String::new, |place| token(&stamp, &place)),
            total,
        })
    }
}

/// One look through the list.
struct Scan<'a> {
    engine: &'a Engine,
    filter: Filter,
    now: Timestamp,
    oldest_first: bool,
}

impl Scan<'_> {
    /// The next matches behind `after`, and where the page behind them begins, if there may be one.
    async fn page(
        &self,
        mut after: Option<Place>,
        page_size: usize,
    ) -> Result<(Vec<Arc<Saga>>, Option<Place>), EngineError> {
        let mut found: Vec<Arc<Saga>> = Vec::new();
        let mut looked_at = 0;
        loop {
            let rows = self.rows(after.clone()).await?;
            let is_last = rows.len() < ROWS_AT_ONCE;
            for row in rows {
                if found.len() == page_size || looked_at == ROWS_A_PAGE_MAX {
                    return Ok((found, after));
                }
                looked_at += 1;
                after = Some((row.created_at, row.id.clone()));
                if let Some(saga) = self.matching(&row).await? {
                    found.push(saga);
                }
            }
            if is_last {
                return Ok((found, None));
            }
        }
    }

    /// The exact number of matches, where an index knows it or it was asked for.
    async fn total(&self, asked_for: bool) -> Result<Option<u64>, EngineError> {
        if self.filter.is_counted() {
            let counters = self.engine.shared.store.counters().await?;
            let matching = counters.iter().filter(|((definition, version, status), _)| {
                let sagas = CountedSagas { definition, version: *version, status: *status };
                self.filter.matches(&sagas, self.now)
            });
            return Ok(Some(matching.map(|(_, count)| count).sum()));
        }
        if !asked_for && !self.filter.is_exact() {
            return Ok(None);
        }
        let (mut total, mut after) = (0, None);
        loop {
            let rows = self.rows(after).await?;
            let is_last = rows.len() < ROWS_AT_ONCE;
            after = rows.last().map(|row| (row.created_at, row.id.clone()));
            for row in &rows {
                total += u64::from(self.counts(row).await?);
            }
            if is_last {
                return Ok(Some(total));
            }
        }
    }

    async fn rows(&self, after: Option<Place>) -> Result<Vec<Summary>, EngineError> {
        let bounds = self.filter.bounds(self.now);
        if bounds.is_nothing() {
            return Ok(Vec::new());
        }
        let statuses = if bounds.all_statuses() { Vec::new() } else { bounds.statuses.into_iter().collect() };
        let query = ListQuery {
            newest_first: !self.oldest_first,
            after,
            created_from: bounds.created_from,
            created_before: bounds.created_before,
            statuses,
            definition: bounds.definition,
            limit: ROWS_AT_ONCE,
        };
        Ok(self.engine.shared.store.list(query).await?)
    }

    /// The saga behind a row, if it matches.
    async fn matching(&self, row: &Summary) -> Result<Option<Arc<Saga>>, EngineError> {
        if self.in_memory(row).is_none()
            && !self.filter.needs_steps(row.status)
            && !self.fits(&SummaryRow(row))
        {
            return Ok(None);
        }
        let saga = self.saga(row).await?;
        Ok(saga.filter(|saga| self.fits(&SagaInView { saga, reach: self.engine.shared.dispatch.as_ref() })))
    }

    async fn counts(&self, row: &Summary) -> Result<bool, EngineError> {
        if self.filter.needs_steps(row.status) {
            return Ok(self.matching(row).await?.is_some());
        }
        Ok(self.fits(&SummaryRow(row)))
    }

    fn fits(&self, candidate: &dyn Candidate) -> bool {
        self.filter.matches(candidate, self.now)
    }

    /// The published saga, unless the store is ahead of it just now.
    fn in_memory(&self, row: &Summary) -> Option<Arc<Saga>> {
        self.engine.shared.published(&row.id).filter(|saga| saga.seq >= row.seq)
    }

    async fn saga(&self, row: &Summary) -> Result<Option<Arc<Saga>>, EngineError> {
        if let Some(saga) = self.in_memory(row) {
            return Ok(Some(saga));
        }
        match self.engine.read(&row.id).await {
            Ok(saga) => Ok(saga),
            Err(EngineError::DataLoss(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// What a token is bound to: the filter and the order.
fn stamp(filter: &str, oldest_first: bool) -> String {
    let order = if oldest_first { "oldest" } else { "newest" };
    let digest = Sha256::digest(format!("{order}\n{}", filter.trim()).as_bytes());
    digest.iter().flat_map(|byte| [byte >> 4, byte & 15]).take(TOKEN_HASH_CHARS).map(hex_digit).collect()
}

fn hex_digit(value: u8) -> char {
    char::from_digit(value.into(), 16).expect("half a byte is one digit")
}

fn token(stamp: &str, (created_at, id): &Place) -> String {
    format!("{stamp}.{}.{id}", created_at.0)
}

fn place_of(token: &str, stamp: &str) -> Result<Option<Place>, EngineError> {
    if token.is_empty() {
        return Ok(None);
    }
    let read = || {
        let mut parts = token.splitn(3, '.');
        let is_ours = parts.next()? == stamp;
        let created_at = Timestamp(parts.next()?.parse().ok()?);
        let id = SagaId::parse(parts.next()?).ok()?;
        is_ours.then_some((created_at, id))
    };
    let place = read().ok_or_else(|| {
        EngineError::Invalid(vec![Violation::new(
            "page_token",
            "does not belong to this filter and order: use next_page_token of the page before as it is",
        )])
    })?;
    Ok(Some(place))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_comes_back_as_its_place_and_belongs_to_its_filter_and_order() {
        let place = (Timestamp(1_700_000_000_123), SagaId::parse("shop.kr:1/2").unwrap());
        let ours = stamp("status = RUNNING", false);
        let made = token(&ours, &place);
        assert_eq!(place_of(&made, &ours).unwrap(), Some(place));
        for other in [stamp("status = RUNNING", true), stamp("status = BLOCKED", false)] {
            assert!(matches!(place_of(&made, &other), Err(EngineError::Invalid(_))));
        }
    }
}
