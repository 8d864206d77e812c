//! `def …`: definitions are checked here, kept by the daemon.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde::Serialize;

use super::args;
use super::client::{Daemon, answer};
use super::definition_check;
use super::exit::Exit;
use super::render::graph::{Language, graph};
use super::render::{registry as told, text};
use super::session::{Session, write_exactly};
use super::trouble::Trouble;
use crate::proto::{
    Definition, GetDefinitionRequest, ListDefinitionsRequest, RegisterDefinitionRequest,
    RegisterDefinitionResponse, RetireDefinitionRequest,
};

/// Definitions asked for at a time.
const PAGE_SIZE: u32 = 200;

/// What to do with definitions.
#[derive(Debug, Subcommand)]
pub enum DefVerb {
    /// Check files without a daemon
    Check(FilesArgs),
    /// Register files; nothing is registered unless the daemon accepts all of them
    Apply(ApplyArgs),
    /// List the registered versions
    List(ListArgs),
    /// Show one version with its steps
    Show(ShowArgs),
    /// Draw a definition
    Graph(GraphArgs),
    /// Close a version to new starts; running sagas go on
    Retire(RetireArgs),
}

/// Which files.
#[derive(Debug, Args)]
pub struct FilesArgs {
    /// Definition files, or folders of them (`*.yaml`, `*.yml`)
    #[arg(required = true, value_name = "FILE|DIR")]
    paths: Vec<PathBuf>,
}

/// What to register.
#[derive(Debug, Args)]
pub struct ApplyArgs {
    #[command(flatten)]
    files: FilesArgs,
    /// Only ask the daemon what registering would give
    #[arg(long)]
    dry_run: bool,
}

/// Which definitions to list.
#[derive(Debug, Args)]
pub struct ListArgs {
    /// Only the versions of this definition
    name: Option<String>,
    /// Leave retired versions out
    #[arg(long)]
    active: bool,
}

/// Which version to show.
#[derive(Debug, Args)]
pub struct ShowArgs {
    /// The definition
    name: String,
    /// The version; 0: the highest
    #[arg(long, default_value_t = 0, value_name = "N")]
    version: u32,
    /// Print the source as it was registered
    #[arg(long)]
    source: bool,
}

/// What to draw.
#[derive(Debug, Args)]
pub struct GraphArgs {
    /// A registered definition
    #[arg(required_unless_present = "file", conflicts_with = "file")]
    name: Option<String>,
    /// Its version; 0: the highest
    #[arg(long, default_value_t = 0, value_name = "N", conflicts_with = "file")]
    version: u32,
    /// A definition file, drawn without a daemon
    #[arg(long)]
    file: Option<PathBuf>,
    /// The language to draw it in
    #[arg(long = "as", value_enum, default_value = "mermaid", value_name = "LANGUAGE")]
    language: Language,
}

/// Which version to retire.
#[derive(Debug, Args)]
pub struct RetireArgs {
    /// The definition
    name: String,
    /// The version, from 1
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    version: u32,
}

/// Runs one of the verbs.
pub async fn run(verb: DefVerb, session: &Session) -> Result<Exit, Trouble> {
    match verb {
        DefVerb::Check(args) => check(&args, session),
        DefVerb::Apply(args) => apply(&args, session).await,
        DefVerb::List(args) => list(args, session).await,
        DefVerb::Show(args) => show(args, session).await,
        DefVerb::Graph(args) => draw(args, session).await,
        DefVerb::Retire(args) => retire(args, session).await,
    }
}

/// One definition file.
struct SourceFile {
    path: PathBuf,
    source: String,
}

fn check(args: &FilesArgs, session: &Session) -> Result<Exit, Trouble> {
    let mut findings = Vec::new();
    for file in files(&args.paths)? {
        findings.push(definition_check::check(&file.path.display().to_string(), &file.source));
    }
    let exit =
        if findings.iter().all(definition_check::Finding::is_good) { Exit::Done } else { Exit::Failed };
    session.answer(
        &findings,
        |_| findings.iter().map(definition_check::Finding::told).collect(),
        || findings.iter().filter(|one| !one.is_good()).map(definition_check::Finding::told).collect(),
    )?;
    Ok(exit)
}

/// What became of one file, for programs.
#[derive(Debug, Serialize)]
struct Applied<'a> {
    file: String,
    existed: bool,
    warnings: &'a [String],
    definition: Option<told::DefinitionView<'a>>,
}

async fn apply(args: &ApplyArgs, session: &Session) -> Result<Exit, Trouble> {
    let files = files(&args.files.paths)?;
    let daemon = session.daemon().await?;
    let mut answers = Vec::new();
    for file in &files {
        answers.push(register(&daemon, file, true).await?);
    }
    if !args.dry_run {
        answers.clear();
        for file in &files {
            answers.push(register(&daemon, file, false).await?);
        }
    }
    let applied = files.iter().zip(&answers).map(|(file, answer)| Applied {
        file: file.path.display().to_string(),
        existed: answer.existed,
        warnings: &answer.warnings,
        definition: answer.definition.as_ref().map(told::definition_view),
    });
    let applied: Vec<_> = applied.collect();
    session.answer(
        &applied,
        |_| {
            files
                .iter()
                .zip(&answers)
                .map(|(file, answer)| applied_told(file, answer, args.dry_run))
                .collect()
        },
        String::new,
    )?;
    Ok(Exit::Done)
}

async fn register(
    daemon: &Daemon,
    file: &SourceFile,
    validate_only: bool,
) -> Result<RegisterDefinitionResponse, Trouble> {
    let asked = format!("register {}", file.path.display());
    let request = RegisterDefinitionRequest { source: file.source.clone(), validate_only };
    answer(&asked, daemon.definitions().register_definition(request)).await
}

fn applied_told(file: &SourceFile, answer: &RegisterDefinitionResponse, dry_run: bool) -> String {
    let version = answer.definition.as_ref().map_or_else(
        || text::NONE.to_owned(),
        |definition| format!("{} v{}", text::printable(&definition.name), definition.version),
    );
    let how = match (answer.existed, dry_run) {
        (true, _) => "is registered already",
        (false, true) => "would be registered",
        (false, false) => "registered",
    };
    let mut told = format!("{}: {version} {how}\n", file.path.display());
    for warning in &answer.warnings {
        told.push_str(&text::paint("  warning: ", text::Tone::Wary));
        told.push_str(&text::printable(warning));
        told.push('\n');
    }
    told
}

/// The files that `paths` name, those of a folder in the order of their names.
fn files(paths: &[PathBuf]) -> Result<Vec<SourceFile>, Trouble> {
    let mut files = Vec::new();
    for path in paths {
        let named = if path.is_dir() { definitions_in(path)? } else { vec![path.clone()] };
        for path in named {
            let source = args::read(&path)?;
            files.push(SourceFile { path, source });
        }
    }
    Ok(files)
}

fn definitions_in(folder: &Path) -> Result<Vec<PathBuf>, Trouble> {
    let trouble = |source| Trouble::Local { what: format!("list {}", folder.display()), source };
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(trouble)? {
        let path = entry.map_err(trouble)?.path();
        let is_yaml = matches!(path.extension().and_then(OsStr::to_str), Some("yaml" | "yml"));
        if is_yaml && path.is_file() {
            found.push(path);
        }
    }
    if found.is_empty() {
        return Err(Trouble::Usage(format!("{} holds no *.yaml or *.yml file", folder.display())));
    }
    found.sort();
    Ok(found)
}

async fn list(args: ListArgs, session: &Session) -> Result<Exit, Trouble> {
    let mut client = session.daemon().await?.definitions();
    let mut definitions = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = ListDefinitionsRequest {
            name: args.name.clone().unwrap_or_default(),
            active_only: args.active,
            page_size: PAGE_SIZE,
            page_token,
        };
        let answer = answer("list definitions", client.list_definitions(request)).await?;
        definitions.extend(answer.definitions);
        page_token = answer.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    let views: Vec<_> = definitions.iter().map(told::definition_view).collect();
    session.answer(
        &views,
        |page| told::definitions(&definitions, page),
        || text::a_line_each(definitions.iter().map(|one| format!("{} {}", one.name, one.version))),
    )?;
    Ok(Exit::Done)
}

async fn read(session: &Session, name: String, version: u32) -> Result<Definition, Trouble> {
    let asked = format!("read definition {}", text::printable(&name));
    let mut client = session.daemon().await?.definitions();
    let request = GetDefinitionRequest { name, version };
    answer(&asked, client.get_definition(request)).await?.definition.ok_or(Trouble::Incomplete("definition"))
}

async fn show(args: ShowArgs, session: &Session) -> Result<Exit, Trouble> {
    let definition = read(session, args.name, args.version).await?;
    if args.source {
        write_exactly(definition.source.as_bytes())?;
    } else {
        session.answer(
            &told::definition_view(&definition),
            |page| told::definition(&definition, page),
            || format!("{} {}\n", definition.name, definition.version),
        )?;
    }
    Ok(Exit::Done)
}

async fn draw(args: GraphArgs, session: &Session) -> Result<Exit, Trouble> {
    let definition = match (args.file, args.name) {
        (Some(path), _) => definition_check::outline(&path.display().to_string(), &args::read(&path)?)?,
        (None, Some(name)) => read(session, name, args.version).await?,
        (None, None) => return Err(Trouble::Usage("name a definition, or a --file".to_owned())),
    };
    write_exactly(graph(&definition, args.language).as_bytes())?;
    Ok(Exit::Done)
}

async fn retire(args: RetireArgs, session: &Session) -> Result<Exit, Trouble> {
    let asked = format!("retire {} v{}", text::printable(&args.name), args.version);
    let mut client = session.daemon().await?.definitions();
    let request = RetireDefinitionRequest { name: args.name, version: args.version };
    let definition = answer(&asked, client.retire_definition(request))
        .await?
        .definition
        .ok_or(Trouble::Incomplete("definition"))?;
    session.answer(
        &told::definition_view(&definition),
        |_| format!("{} v{} is retired; running sagas go on\n", definition.name, definition.version),
        String::new,
    )?;
    Ok(Exit::Done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_gives_its_definitions_by_name_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["b.yml", "a.yaml", "notes.md"] {
            std::fs::write(folder.path().join(name), name).unwrap();
        }
        let found = files(&[folder.path().to_owned()]).unwrap();
        let sources: Vec<_> = found.iter().map(|file| file.source.as_str()).collect();
        assert_eq!(sources, ["a.yaml", "b.yml"]);
    }

    #[test]
    fn a_folder_without_definitions_is_a_usage_error() {
        let folder = tempfile::tempdir().unwrap();
        let trouble = files(&[folder.path().to_owned()]).err().unwrap();
        assert_eq!(trouble.exit(), Exit::Usage);
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let trouble = files(&["/nowhere/order.yaml".into()]).err().unwrap();
        assert!(trouble.to_string().starts_with("cannot read /nowhere/order.yaml: "), "{trouble}");
    }
}
