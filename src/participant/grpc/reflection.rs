//! Asking a server for its own types: `grpc.reflection.v1`, and `v1alpha` where that is not there. The
//! messages of both are the same.

use std::time::Duration;

use bytes::Bytes;
use http::Uri;
use http::header::HeaderMap;
use http::uri::PathAndQuery;
use prost::Message as _;
use tonic::Code;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
use tonic_reflection::pb::v1::{ServerReflectionRequest, ServerReflectionResponse};

use super::answers::told;
use super::files::{FILES_MAX_BYTES, Files};
use crate::participant::line::Line;
use crate::participant::wire::{self, Answer, NoAnswer, Question};

/// What the types of one service are asked for in rounds: the files, what they import, and so on.
const ROUNDS_MAX: usize = 64;
/// Most questions in one exchange.
const QUESTIONS_MAX: usize = 256;
/// The server is told to give up after this time; the caller has a clock of its own.
const SERVER_TIMEOUT: Duration = Duration::from_secs(10);

/// Why a server's types could not be learned. Nothing was called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Unlearned {
    /// It has no reflection.
    NotServed,
    /// It does not know what was asked for.
    NotFound,
    /// It could not be asked, or what it said cannot be used.
    Failed(String),
}

impl Unlearned {
    pub(super) fn cause(&self) -> String {
        match self {
            Unlearned::NotServed => {
                "it has no server reflection (grpc.reflection.v1 or v1alpha); add it, or \
                                     register it with its descriptor set"
                    .to_owned()
            }
            Unlearned::NotFound => "its server reflection does not know it".to_owned(),
            Unlearned::Failed(cause) => format!("its server reflection did not answer as it should: {cause}"),
        }
    }
}

/// The two versions, newest first.
#[derive(Debug, Clone, Copy)]
enum Version {
    V1,
    V1Alpha,
}

impl Version {
    fn path(self) -> &'static str {
        match self {
            Version::V1 => "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
            Version::V1Alpha => "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
        }
    }
}

/// A server that is asked.
pub(super) struct Reflection<'a> {
    line: &'a Line,
    origin: &'a Uri,
    version: Version,
}

impl<'a> Reflection<'a> {
    pub(super) fn of(line: &'a Line, origin: &'a Uri) -> Self {
        Self { line, origin, version: Version::V1 }
    }

    /// The full names of its services.
    pub(super) async fn services(&mut self) -> Result<Vec<String>, Unlearned> {
        let asked = vec![MessageRequest::ListServices(String::new())];
        let answer = self.ask(asked).await?.pop().unwrap_or(Err(Unlearned::NotFound))?;
        let MessageResponse::ListServicesResponse(list) = answer else {
            return Err(Unlearned::Failed(
                "a list of services was asked for and something else came".to_owned(),
            ));
        };
        let mut names: Vec<String> = list.service.into_iter().map(|service| service.name).collect();
        names.sort();
        Ok(names)
    }

    /// Adds to `files` the one that defines `symbol` (a service, a message or an enum), and all that it
    /// needs.
    pub(super) async fn add(&mut self, files: &mut Files, symbol: &str) -> Result<(), Unlearned> {
        if files.defines(symbol) {
            return Ok(());
        }
        let asked = MessageRequest::FileContainingSymbol(symbol.to_owned());
        let answer = self.ask(vec![asked]).await?.pop().unwrap_or(Err(Unlearned::NotFound))?;
        take(files, answer)?;
        if !files.defines(symbol) {
            return Err(Unlearned::NotFound);
        }
        self.complete(files).await
    }

    /// Asks for what the files speak of until all is there or nobody has it. An import that cannot be had
    /// may be one that nothing uses.
    async fn complete(&mut self, files: &mut Files) -> Result<(), Unlearned> {
        let mut given_up = std::collections::BTreeSet::new();
        for _ in 0..ROUNDS_MAX {
            let mut missing = files.missing();
            // What every compiler brings need not be asked for.
            let brought = missing.imports.iter().filter(|import| files.add_well_known(import)).count();
            if brought > 0 {
                missing = files.missing();
            }
            let imports = missing.imports.into_iter().filter(|import| !given_up.contains(import));
            let mut wanted: Vec<(String, MessageRequest)> =
                imports.map(|import| (import.clone(), MessageRequest::FileByFilename(import))).collect();
            if wanted.is_empty() {
                // All imports that can be had are there: what is still missing is under another path.
                let symbols = missing.types.into_iter().filter(|name| !given_up.contains(name));
                wanted.extend(symbols.map(|name| (name.clone(), MessageRequest::FileContainingSymbol(name))));
                if wanted.is_empty() {
                    return Ok(());
                }
            }
            wanted.truncate(QUESTIONS_MAX);
            let (names, asked): (Vec<_>, Vec<_>) = wanted.into_iter().unzip();
            for (name, answer) in names.into_iter().zip(self.ask(asked).await?) {
                match answer {
                    Ok(answer) => take(files, answer)?,
                    Err(Unlearned::NotFound) => {}
                    Err(failed) => return Err(failed),
                }
                // Asked for once, whatever came.
                given_up.insert(name);
            }
        }
        Err(Unlearned::Failed(format!("its types are nested deeper than {ROUNDS_MAX} imports")))
    }

    /// One answer for each question, in their order. A server may answer each with an error of its own,
    /// or end the stream at the first; then the rest is asked again.
    async fn ask(
        &mut self,
        asked: Vec<MessageRequest>,
    ) -> Result<Vec<Result<MessageResponse, Unlearned>>, Unlearned> {
        let mut answers = Vec::with_capacity(asked.len());
        while answers.len() < asked.len() {
            let rest = &asked[answers.len()..];
            let Answer { messages, status } = self.exchange(rest).await?;
            let is_ok = status.code == Code::Ok;
            let had = answers.len();
            answers.extend(messages.iter().map(read));
            if answers.len() == asked.len() {
                break;
            }
            match status.code {
                // Whoever ends the stream for it.
                Code::NotFound | Code::InvalidArgument | Code::Unknown => {
                    answers.push(Err(Unlearned::NotFound));
                }
                _ if !is_ok => return Err(Unlearned::Failed(told(&status))),
                _ if answers.len() == had => {
                    return Err(Unlearned::Failed("it left a question without an answer".to_owned()));
                }
                _ => {}
            }
        }
        Ok(answers)
    }

    async fn exchange(&mut self, asked: &[MessageRequest]) -> Result<Answer, Unlearned> {
        loop {
            let (exchange, unanswered) = self
                .line
                .open()
                .await
                .map_err(|status| Unlearned::Failed(super::answers::in_words(&status)))?;
            let question = self.question(asked);
            let answer = wire::ask(exchange, self.origin, question).await;
            unanswered.answered();
            let is_served = match &answer {
                Ok(answer) => answer.status.code != Code::Unimplemented,
                Err(NoAnswer::NotGrpc(_)) => false,
                Err(NoAnswer::Broken(_)) => true,
            };
            match (is_served, self.version) {
                (true, _) => return answer.map_err(|none| Unlearned::Failed(none.cause())),
                (false, Version::V1) => self.version = Version::V1Alpha,
                (false, Version::V1Alpha) => {
                    return Err(match answer {
                        Err(not_grpc) => Unlearned::Failed(not_grpc.cause()),
                        Ok(_) => Unlearned::NotServed,
                    });
                }
            }
        }
    }

    fn question(&self, asked: &[MessageRequest]) -> Question {
        let host = self.origin.authority().map(ToString::to_string).unwrap_or_default();
        let request = |asked: &MessageRequest| ServerReflectionRequest {
            host: host.clone(),
            message_request: Some(asked.clone()),
        };
        let requests: Vec<_> = asked.iter().map(request).collect();
        let mut headers = HeaderMap::new();
        wire::give_time(&mut headers, SERVER_TIMEOUT);
        Question {
            path: PathAndQuery::from_static(self.version.path()),
            headers,
            messages: wire::messages(&requests),
            answer_max_bytes: FILES_MAX_BYTES,
            answers_max: asked.len(),
        }
    }
}

fn read(message: &Bytes) -> Result<MessageResponse, Unlearned> {
    let response = ServerReflectionResponse::decode(message.clone())
        .map_err(|error| Unlearned::Failed(format!("its answer cannot be read: {error}")))?;
    match response.message_response {
        // Servers differ in the code they have for "not here".
        Some(MessageResponse::ErrorResponse(_)) => Err(Unlearned::NotFound),
        Some(answer) => Ok(answer),
        None => Err(Unlearned::Failed("its answer is empty".to_owned())),
    }
}

fn take(files: &mut Files, answer: MessageResponse) -> Result<(), Unlearned> {
    let MessageResponse::FileDescriptorResponse(found) = answer else {
        return Err(Unlearned::Failed("a file was asked for and something else came".to_owned()));
    };
    found.file_descriptor_proto.iter().try_for_each(|file| files.add(file)).map_err(Unlearned::Failed)
}
