//! `get`, `list`, `count`, `why`, `stuck`: looking without touching.

use clap::{Args, ValueEnum};

use super::client::answer;
use super::exit::Exit;
use super::render::{saga as told, text, view};
use super::session::{Form, Session};
use super::trouble::Trouble;
use crate::proto::{
    ExplainRequest, GetSagaRequest, ListOrder, ListSagasRequest, ListStuckRequest, Saga, StuckItem,
};

/// Sagas asked for at a time.
const PAGE_SIZE: u32 = 200;
/// Sagas listed unless another limit is given.
const LIMIT_DEFAULT: u32 = 100;

/// Which saga to show.
#[derive(Debug, Args)]
pub struct GetArgs {
    /// The saga
    saga_id: String,
}

/// Shows one saga.
pub async fn get(args: GetArgs, session: &Session) -> Result<Exit, Trouble> {
    let asked = format!("read saga {}", text::printable(&args.saga_id));
    let mut client = session.daemon().await?.sagas();
    let request = GetSagaRequest { saga_id: args.saga_id };
    let saga = answer(&asked, client.get_saga(request)).await?.saga.ok_or(Trouble::Incomplete("saga"))?;
    session.answer(
        &view::saga(&saga),
        |page| told::whole(&saga, page),
        || told::ids(std::slice::from_ref(&saga)),
    )?;
    Ok(Exit::Done)
}

/// The order of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Order {
    /// Latest start first
    Newest,
    /// Earliest start first
    Oldest,
}

impl From<Order> for ListOrder {
    fn from(order: Order) -> Self {
        match order {
            Order::Newest => ListOrder::NewestFirst,
            Order::Oldest => ListOrder::OldestFirst,
        }
    }
}

/// The filter language in short, for `--help`.
const FILTER_HELP: &str =
    "Filter: comparisons with = != < <= > >= and : (contains), joined by AND, OR, NOT and ( ).
Fields: status definition version saga_id age idle created updated step participant error blocked
paused uncertain label.NAME. Spans are written 10m, times in RFC 3339, odd texts in double quotes:
  status = BLOCKED AND age > 10m
  label.region = \"kr\" AND error : \"timeout\"";

/// Which sagas to list.
#[derive(Debug, Args)]
#[command(after_help = FILTER_HELP)]
pub struct ListArgs {
    /// Which sagas, such as `status = BLOCKED AND age > 10m`; left out: all
    #[arg(short, long, default_value = "", value_name = "FILTER")]
    filter: String,
    /// Which first
    #[arg(long, value_enum, default_value = "newest")]
    order: Order,
    /// Most sagas to list; 0: all of them
    #[arg(long, default_value_t = LIMIT_DEFAULT, value_name = "N")]
    limit: u32,
}

/// Lists sagas over as many pages as it takes.
pub async fn list(args: ListArgs, session: &Session) -> Result<Exit, Trouble> {
    let mut client = session.daemon().await?.sagas();
    let limit = if args.limit == 0 { usize::MAX } else { args.limit as usize };
    let mut sagas: Vec<Saga> = Vec::new();
    let mut page_token = String::new();
    let (total, more) = loop {
        let left = limit - sagas.len();
        let request = ListSagasRequest {
            filter: args.filter.clone(),
            page_size: u32::try_from(left).unwrap_or(PAGE_SIZE).min(PAGE_SIZE),
            page_token,
            order: ListOrder::from(args.order).into(),
            with_total: false,
        };
        let answer = answer("list sagas", client.list_sagas(request)).await?;
        sagas.extend(answer.sagas);
        page_token = answer.next_page_token;
        if page_token.is_empty() || sagas.len() >= limit {
            break (answer.total_known.then_some(answer.total), !page_token.is_empty());
        }
    };
    session.answer(&view::sagas(&sagas, total), |page| told::many(&sagas, page), || told::ids(&sagas))?;
    if more && session.form() == Form::Table {
        let of = total.map_or_else(String::new, |total| format!(" of {total}"));
        session.remark(&format!("the first {}{of}; --limit 0 lists all", sagas.len()));
    }
    Ok(Exit::Done)
}

/// Which sagas to count.
#[derive(Debug, Args)]
#[command(after_help = FILTER_HELP)]
pub struct CountArgs {
    /// Which sagas, such as `status = BLOCKED AND age > 10m`; left out: all
    #[arg(short, long, default_value = "", value_name = "FILTER")]
    filter: String,
}

/// Counts sagas, exactly.
pub async fn count(args: CountArgs, session: &Session) -> Result<Exit, Trouble> {
    let mut client = session.daemon().await?.sagas();
    let request = ListSagasRequest {
        filter: args.filter,
        page_size: 1,
        with_total: true,
        ..ListSagasRequest::default()
    };
    let answer = answer("count sagas", client.list_sagas(request)).await?;
    if !answer.total_known {
        return Err(Trouble::Incomplete("total"));
    }
    let number = || format!("{}\n", answer.total);
    session.answer(&view::Count { total: answer.total }, |_| number(), number)?;
    Ok(Exit::Done)
}

/// Which saga to explain.
#[derive(Debug, Args)]
pub struct WhyArgs {
    /// The saga
    saga_id: String,
}

/// Says why a saga stands where it stands.
pub async fn why(args: WhyArgs, session: &Session) -> Result<Exit, Trouble> {
    let asked = format!("explain saga {}", text::printable(&args.saga_id));
    let mut client = session.daemon().await?.operations();
    let request = ExplainRequest { saga_id: args.saga_id };
    let answer = answer(&asked, client.explain(request)).await?;
    session.answer(
        &view::explained(&answer),
        |page| told::explained(&answer, page),
        || match answer.suggested_command.as_str() {
            "" => String::new(),
            command => format!("{}\n", text::printable(command)),
        },
    )?;
    Ok(Exit::Done)
}

/// How much of what is stuck to list.
#[derive(Debug, Args)]
pub struct StuckArgs {
    /// Most entries to list; 0: all of them
    #[arg(long, default_value_t = LIMIT_DEFAULT, value_name = "N")]
    limit: u32,
}

/// Lists what waits for an operator.
pub async fn stuck(args: StuckArgs, session: &Session) -> Result<Exit, Trouble> {
    let mut client = session.daemon().await?.operations();
    let limit = if args.limit == 0 { usize::MAX } else { args.limit as usize };
    let mut items: Vec<StuckItem> = Vec::new();
    let mut page_token = String::new();
    let total = loop {
        let left = limit - items.len();
        let page_size = u32::try_from(left).unwrap_or(PAGE_SIZE).min(PAGE_SIZE);
        let request = ListStuckRequest { page_size, page_token };
        let answer = answer("list what is stuck", client.list_stuck(request)).await?;
        items.extend(answer.items);
        page_token = answer.next_page_token;
        if page_token.is_empty() || items.len() >= limit {
            break answer.total;
        }
    };
    session.answer(
        &view::stuck(&items, total),
        |page| told::stuck(&items, total, page),
        || text::a_line_each(items.iter().map(|item| &item.saga_id)),
    )?;
    Ok(Exit::Done)
}
