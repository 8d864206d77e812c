//! Lists, filters, totals.

use std::time::Duration;

use super::world::{World, refused};
use crate::engine::error::EngineError;
use crate::engine::request::{ListAnswer, ListRequest};

async fn list(world: &World, filter: &str, page_size: usize, token: &str) -> ListAnswer {
    try_list(world, filter, page_size, token).await.unwrap()
}

async fn try_list(
    world: &World,
    filter: &str,
    page_size: usize,
    token: &str,
) -> Result<ListAnswer, EngineError> {
    let request = ListRequest {
        filter: filter.to_owned(),
        page_size,
        page_token: token.to_owned(),
        oldest_first: true,
        with_total: false,
    };
    world.engine.list(request).await
}

fn ids(answer: &ListAnswer) -> Vec<String> {
    answer.sagas.iter().map(|view| view.saga.id.to_string()).collect()
}

/// Three that completed, one that was undone, one that waits.
async fn five_sagas() -> World {
    let world = World::new().await;
    for id in ["a", "b", "c"] {
        world.start("order", id).await.unwrap();
        world.ended(id).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    world.participants.answer("stock.deduct", refused("SOLD_OUT"));
    world.start("order", "d").await.unwrap();
    world.ended("d").await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    world.participants.set_absent("stock", true);
    world.start("slow", "e").await.unwrap();
    world
}

#[tokio::test(start_paused = true)]
async fn pages_show_every_match_once_and_the_total_is_exact() {
    let world = five_sagas().await;
    let (mut token, mut seen) = (String::new(), Vec::new());
    loop {
        let page = list(&world, "", 2, &token).await;
        assert_eq!(page.total, Some(5));
        seen.extend(ids(&page));
        token = page.next_page_token;
        if token.is_empty() {
            break;
        }
    }
    assert_eq!(seen, ["a", "b", "c", "d", "e"]);
}

#[tokio::test(start_paused = true)]
async fn filters_see_ended_and_running_sagas_alike() {
    let world = five_sagas().await;
    for (filter, expected, total) in [
        ("status = COMPLETED", vec!["a", "b", "c"], Some(3)),
        ("definition = slow", vec!["e"], Some(1)),
        ("error : SOLD", vec!["d"], None),
        ("participant = stock", vec!["d", "e"], None),
        ("step = stock AND status = RUNNING", vec!["e"], None),
        ("age > 3500ms AND status != COMPENSATED", vec!["a"], Some(1)),
        ("status = COMPENSATING", vec![], Some(0)),
    ] {
        let answer = list(&world, filter, 10, "").await;
        assert_eq!(
            (ids(&answer), answer.total),
            (expected.iter().map(ToString::to_string).collect(), total),
            "{filter}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_total_is_counted_where_it_is_asked_for() {
    let world = five_sagas().await;
    let request = ListRequest {
        filter: "participant = stock".to_owned(),
        page_size: 1,
        page_token: String::new(),
        oldest_first: false,
        with_total: true,
    };
    let answer = world.engine.list(request).await.unwrap();
    assert_eq!((ids(&answer), answer.total), (vec!["e".to_owned()], Some(2)));
}

#[tokio::test(start_paused = true)]
async fn a_bad_filter_or_a_foreign_token_is_invalid() {
    let world = five_sagas().await;
    let Err(EngineError::Invalid(violations)) = try_list(&world, "status = ", 10, "").await else {
        panic!("half a filter is none");
    };
    assert!(violations[0].field == "filter" && violations[0].description.contains("character"));
    let token = list(&world, "", 1, "").await.next_page_token;
    let foreign = try_list(&world, "status = COMPLETED", 1, &token).await;
    assert!(matches!(foreign, Err(EngineError::Invalid(_))));
}
