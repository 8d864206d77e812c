//! The methods this daemon serves, and how each may use its time.

/// How long a method may take and what it is counted against.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Class {
    /// Answers within the usual time.
    Call,
    /// May wait for a saga for as long as the client asks, up to the longest wait.
    Wait,
    /// A stream that ends with the saga, the client or the daemon.
    Stream,
    /// A stream that is told of the daemon's end and then ends by itself.
    Worker,
}

/// A method, known or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Method {
    /// `package.Service/Method`; a fixed set, so that it can label a metric.
    pub name: &'static str,
    /// How it may use its time.
    pub class: Class,
}

const METHODS: [Method; 28] = [
    wait("sagad.v1.SagaService/StartSaga"),
    call("sagad.v1.SagaService/GetSaga"),
    wait("sagad.v1.SagaService/WaitSaga"),
    stream("sagad.v1.SagaService/WatchSaga"),
    call("sagad.v1.SagaService/ListSagas"),
    call("sagad.v1.SagaService/CancelSaga"),
    call("sagad.v1.DefinitionService/RegisterDefinition"),
    call("sagad.v1.DefinitionService/GetDefinition"),
    call("sagad.v1.DefinitionService/ListDefinitions"),
    call("sagad.v1.DefinitionService/RetireDefinition"),
    call("sagad.v1.RegistryService/RegisterHandlers"),
    call("sagad.v1.RegistryService/RenewRegistration"),
    call("sagad.v1.RegistryService/DeregisterHandlers"),
    call("sagad.v1.RegistryService/ListParticipants"),
    call("sagad.v1.RegistryService/CompleteStep"),
    worker("sagad.v1.RegistryService/OpenWorker"),
    call("sagad.v1.OperationsService/Explain"),
    call("sagad.v1.OperationsService/ListStuck"),
    call("sagad.v1.OperationsService/Repair"),
    call("sagad.v1.OperationsService/PauseParticipant"),
    call("sagad.v1.OperationsService/ResumeParticipant"),
    call("sagad.v1.OperationsService/GetStats"),
    call("grpc.health.v1.Health/Check"),
    call("grpc.health.v1.Health/List"),
    stream("grpc.health.v1.Health/Watch"),
    stream("grpc.reflection.v1.ServerReflection/ServerReflectionInfo"),
    stream("grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"),
    call(UNKNOWN),
];

const UNKNOWN: &str = "unknown";

const fn call(name: &'static str) -> Method {
    Method { name, class: Class::Call }
}

const fn wait(name: &'static str) -> Method {
    Method { name, class: Class::Wait }
}

const fn stream(name: &'static str) -> Method {
    Method { name, class: Class::Stream }
}

const fn worker(name: &'static str) -> Method {
    Method { name, class: Class::Worker }
}

/// The method behind a request's path (`/package.Service/Method`).
pub(super) fn find(path: &str) -> Method {
    let name = path.strip_prefix('/').unwrap_or(path);
    METHODS.iter().copied().find(|method| method.name == name).unwrap_or(call(UNKNOWN))
}

#[cfg(test)]
mod tests {
    use prost::Message as _;
    use prost_types::FileDescriptorSet;

    use super::*;

    #[test]
    fn every_method_of_the_proto_files_that_this_daemon_serves_is_known() {
        let files = FileDescriptorSet::decode(crate::proto::FILE_DESCRIPTOR_SET).unwrap();
        let mut seen = 0;
        for file in files.file.iter().filter(|file| file.package() == "sagad.v1") {
            for service in file.service.iter().filter(|service| service.name() != "ParticipantService") {
                for method in &service.method {
                    let found = find(&format!("/sagad.v1.{}/{}", service.name(), method.name()));
                    assert_ne!(found.name, UNKNOWN, "{}/{}", service.name(), method.name());
                    let is_stream = matches!(found.class, Class::Stream | Class::Worker);
                    assert_eq!(is_stream, method.server_streaming(), "{}", found.name);
                    seen += 1;
                }
            }
        }
        assert_eq!(seen, 22);
    }

    #[test]
    fn a_path_nobody_serves_gets_one_common_name() {
        assert_eq!(find("/shop.Stock/Deduct"), call(UNKNOWN));
        assert_eq!(find(""), call(UNKNOWN));
    }
}
