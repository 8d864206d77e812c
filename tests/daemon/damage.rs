//! Damage to the store's files: harmless, or refused, or the damaged saga is set aside. Never
//! silent.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use sagad::proto::{GetSagaRequest, RegisterDefinitionRequest, SagaStatus, StartSagaRequest, WaitFor};
use tonic::Code;

use crate::support::chance::Chance;
use crate::support::daemon::{Daemon, Launch};
use crate::support::participant::{Answer, Participant};

/// Damages in a plain test run; the long form takes its number from the environment.
const DAMAGES_DEFAULT: u64 = 24;
/// Sagas in the store that is damaged: half ended, half open.
const SAGAS: usize = 60;

const DEFINITION: &str = r"
saga: damaged
steps:
  - name: only
    action: { call: shop.act }
    compensation: none
  - name: open
    when: ${input.stays_open}
    action: { call: nobody.answers }
    compensation: none
";

/// Copies a folder and all that is in it.
pub fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let path = entry?.path();
        let target = to.join(path.file_name().context("a name")?);
        if path.is_dir() {
            copy_folder(&path, &target)?;
        } else {
            fs::copy(&path, &target)?;
        }
    }
    Ok(())
}

fn files_below(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            files.extend(files_below(&path)?);
        } else if fs::metadata(&path)?.len() > 0 {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// Fills a store and stops the daemon in good order; what each saga must look like.
async fn fill(data: &Path) -> Result<BTreeMap<String, (SagaStatus, String)>> {
    let shop = Participant::scripted(|_| Answer::done()).await?;
    let mut daemon = Launch::on(data).start()?;
    let request = RegisterDefinitionRequest { source: DEFINITION.to_owned(), validate_only: false };
    daemon.definitions().register_definition(request).await?;
    shop.register(&daemon, "shop", &["act"]).await?;
    let mut expected = BTreeMap::new();
    for n in 0..SAGAS {
        let (id, stays_open) = (format!("saga-{n}"), n % 2 == 0);
        let filler = "x".repeat(n * 50);
        let input = format!("{{\"filler\":\"{filler}\",\"stays_open\":{stays_open}}}");
        let request = StartSagaRequest {
            saga_id: id.clone(),
            definition: "damaged".to_owned(),
            input_json: input.clone(),
            wait: Some(prost_types::Duration { seconds: if stays_open { 0 } else { 30 }, nanos: 0 }),
            wait_for: WaitFor::Ended.into(),
            ..Default::default()
        };
        daemon.sagas().start_saga(request).await?;
        if stays_open {
            shop.seen(|call| call.saga == id).await;
        }
        let status = if stays_open { SagaStatus::Running } else { SagaStatus::Completed };
        expected.insert(id, (status, input));
    }
    rustix::process::kill_process(
        rustix::process::Pid::from_raw(daemon.pid().cast_signed()).context("a pid")?,
        rustix::process::Signal::TERM,
    )?;
    ensure!(daemon.wait()?.success());
    Ok(expected)
}

/// Does one damage; what was done.
fn damage(data: &Path, chance: &mut Chance) -> Result<String> {
    let files = files_below(data)?;
    let index = usize::try_from(chance.below(files.len() as u64))?;
    let path = &files[index];
    let mut content = fs::read(path)?;
    let place = usize::try_from(chance.below(content.len() as u64))?;
    let name = path.strip_prefix(data)?.display().to_string();
    if chance.one_in(3) {
        content.truncate(place);
        fs::write(path, content)?;
        return Ok(format!("{name} cut to {place} bytes"));
    }
    // Sled reserves space ahead: a flip there says nothing, so look for bytes in use.
    let used: Vec<usize> = (0..content.len()).filter(|&at| content[at] != 0).collect();
    let at = if used.is_empty() { place } else { used[usize::try_from(chance.below(used.len() as u64))?] };
    content[at] ^= 1 << chance.below(8);
    fs::write(path, content)?;
    Ok(format!("{name}: a bit flipped at byte {at}"))
}

/// Every saga is as it was, or is said to be damaged.
async fn check(daemon: &Daemon, expected: &BTreeMap<String, (SagaStatus, String)>) -> Result<usize> {
    let mut quarantined = 0;
    for (id, (status, input)) in expected {
        match daemon.sagas().get_saga(GetSagaRequest { saga_id: id.clone() }).await {
            Ok(answer) => {
                let saga = answer.into_inner().saga.context("a saga in the answer")?;
                ensure!(saga.status() == *status && saga.input_json == *input, "{id} is another: {saga:?}");
            }
            Err(error) if error.code() == Code::DataLoss => quarantined += 1,
            Err(error) => anyhow::bail!("{id} is gone without a word: {error}"),
        }
    }
    Ok(quarantined)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damage_is_harmless_or_refused_or_set_aside_and_never_silent() -> Result<()> {
    let number =
        |name: &str, otherwise| std::env::var(name).ok().and_then(|t| t.parse().ok()).unwrap_or(otherwise);
    let (count, seed) = (number("SAGAD_DAMAGES", DAMAGES_DEFAULT), number("SAGAD_SEED", 1));
    let mut chance = Chance::seeded(seed);
    let base = tempfile::tempdir()?;
    let whole = base.path().join("whole");
    let expected = fill(&whole).await?;
    let (mut refused, mut harmless, mut set_aside) = (0, 0, 0);
    for n in 0..count {
        let data = base.path().join("damaged");
        let _ = fs::remove_dir_all(&data);
        copy_folder(&whole, &data)?;
        let what = damage(&data, &mut chance)?;
        let context = || format!("damage {n}, seed {seed}: {what}");
        match Launch::on(&data).try_start().with_context(context)? {
            Err((status, output)) => {
                ensure!(!status.success() && output.contains("store"), "{}: {output}", context());
                ensure!(!output.contains("RUST_BACKTRACE"), "{}: it panicked: {output}", context());
                refused += 1;
            }
            Ok(daemon) => match check(&daemon, &expected).await.with_context(context)? {
                0 => harmless += 1,
                _ => set_aside += 1,
            },
        }
    }
    println!(
        "{count} damages, seed {seed}: {refused} refused, {set_aside} set aside, {harmless} harmless, 0 silent"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_older_copy_of_the_files_is_refused() -> Result<()> {
    let base = tempfile::tempdir()?;
    let (data, older) = (base.path().join("data"), base.path().join("older"));
    fill(&data).await?;
    copy_folder(&data, &older)?;
    let daemon = Launch::on(&data).start()?;
    let request = StartSagaRequest {
        saga_id: "newer".to_owned(),
        definition: "damaged".to_owned(),
        ..Default::default()
    };
    daemon.sagas().start_saga(request).await?;
    rustix::process::kill_process(
        rustix::process::Pid::from_raw(daemon.pid().cast_signed()).context("a pid")?,
        rustix::process::Signal::TERM,
    )?;
    let mut daemon = daemon;
    ensure!(daemon.wait()?.success());
    // The log of the newer one still reaches back to it: nothing is missing.
    let mixed = base.path().join("mixed");
    copy_folder(&data, &mixed)?;
    fs::remove_dir_all(mixed.join("open"))?;
    copy_folder(&older.join("open"), &mixed.join("open"))?;
    let daemon = Launch::on(&mixed).start()?;
    let request = GetSagaRequest { saga_id: "newer".to_owned() };
    daemon.sagas().get_saga(request).await?;
    drop(daemon);
    // With an older log there is.
    fs::remove_dir_all(data.join("open"))?;
    copy_folder(&older.join("open"), &data.join("open"))?;
    for log in ["wal-0", "wal-1"] {
        fs::copy(older.join(log), data.join(log))?;
    }
    match Launch::on(&data).try_start()? {
        Err((status, output)) => {
            ensure!(!status.success() && output.contains("older"), "{status}: {output}");
            Ok(())
        }
        Ok(_) => anyhow::bail!("a store older than its marker was opened"),
    }
}
