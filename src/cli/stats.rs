//! `stats`: the daemon's counts and figures.

use super::client::answer;
use super::exit::Exit;
use super::render::stats as told;
use super::session::Session;
use super::trouble::Trouble;
use crate::proto::GetStatsRequest;

/// Shows the figures as of this moment.
pub async fn stats(session: &Session) -> Result<Exit, Trouble> {
    let mut client = session.daemon().await?.operations();
    let stats = answer("read the figures", client.get_stats(GetStatsRequest {})).await?;
    session.answer(&told::view(&stats), |page| told::figures(&stats, page), String::new)?;
    Ok(Exit::Done)
}
