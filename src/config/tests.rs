//! Each way in which a configuration can be wrong, and what is said about it.

use super::*;

fn parse(text: &str) -> Result<Config, ConfigProblem> {
    Config::parse(text, Path::new("sagad.toml"))
}

fn problems(text: &str) -> Vec<String> {
    let config = parse(text).unwrap_or_else(|problem| panic!("{problem}"));
    config.validate().iter().map(ToString::to_string).collect()
}

#[test]
fn an_empty_file_is_the_defaults_and_the_defaults_are_right() {
    let config = parse("").unwrap();
    assert_eq!(config.server.grpc_addr.to_string(), "127.0.0.1:7420");
    assert_eq!(config.server.http_addr.to_string(), "127.0.0.1:7421");
    assert_eq!(config.store.retain, Duration::from_hours(720));
    assert_eq!(config.limits.saga_max_bytes, 16 * 1024 * 1024);
    assert_eq!(config.validate(), []);
    assert_eq!(Config::default().validate(), []);
}

#[test]
fn every_field_is_read() {
    let config = parse(
        r#"
        sagas_dir = "."
        [server]
        grpc_addr = "0.0.0.0:1"
        http_addr = "[::1]:2"
        allow_insecure = true
        [store]
        kind = "memory"
        dir = "/tmp/x"
        cache_mib = 64
        retain = "90m"
        [limits]
        input_max_bytes = 2048
        saga_max_bytes = 1_000_000
        requests_max = 3
        watches_max = 4
        mail_queue_max = 50
        connections_max = 6
        request_timeout = "7s"
        [engine]
        shards = 8
        batch_max = 9
        [log]
        filter = "warn,sagad=debug"
        format = "json"
        [[participants]]
        name = "stock"
        endpoint = "http://127.0.0.1:9001"
        protocol = "sagad"
        actions = ["deduct", "restore"]
        max_in_flight = 10
        "#,
    )
    .unwrap();
    assert_eq!(config.validate(), []);
    assert_eq!(config.store.kind, StoreKind::Memory);
    assert_eq!(config.store.retain, Duration::from_mins(90));
    assert_eq!(config.log.format, LogFormat::Json);
    assert_eq!(config.engine.batch_max, 9);
    assert_eq!(config.participants[0].handlers().unwrap().actions.len(), 2);
}

#[test]
fn what_cannot_be_read_is_pointed_at() {
    let cases = [
        (
            "[server]\ngrpc_adr = \"x\"",
            "sagad.toml:2:1: server.grpc_adr: unknown field `grpc_adr`",
            "take it out",
        ),
        ("[sever]", "sagad.toml:1:2: sever: unknown field `sever`", "take it out"),
        ("[server]\ngrpc_addr = \"localhost\"", "sagad.toml:2:13: server.grpc_addr: ", "127.0.0.1:7420"),
        ("[store]\nretain = \"30 moons\"", "sagad.toml:2:10: store.retain: ", "\"30d\""),
        ("[store]\nkind = \"rocks\"", "sagad.toml:2:8: store.kind: unknown variant `rocks`", "\"sled\" or"),
        ("[log]\nformat = 1", "sagad.toml:2:10: log.format: ", "\"json\""),
        ("\n[engine]\nshards = \"many\"", "sagad.toml:3:10: engine.shards: invalid type", "check-config"),
        ("[engine]\nshards = -1", "sagad.toml:2:10: engine.shards: invalid value", "check-config"),
        (
            "[[participants]]\nname = \"stock\"",
            "sagad.toml:1:1: participants[0]: missing field `endpoint`",
            "add it",
        ),
        ("[server", "sagad.toml:1:8: ", "check-config"),
    ];
    for (text, start, remedy) in cases {
        let said = parse(text).unwrap_err().to_string();
        assert!(said.starts_with(start), "{text:?} said {said:?}");
        assert!(said.contains(remedy), "{text:?} said {said:?}");
    }
}

#[test]
fn what_cannot_work_is_pointed_at() {
    let participant = "[[participants]]\nname = \"stock\"\nactions = [\"deduct\"]\n";
    let cases = [
        (
            "[server]\ngrpc_addr = \"0.0.0.0:7420\"",
            "sagad.toml:2:13: server.grpc_addr: ",
            "allow_insecure = true",
        ),
        (
            "[server]\nhttp_addr = \"127.0.0.1:7420\"",
            "sagad.toml:2:13: server.http_addr: ",
            "a port of its own",
        ),
        ("[store]\nwal_kib = 1", "sagad.toml:2:11: store.wal_kib: 1 is out of range", "from 64 to 262144"),
        ("[store]\ncache_mib = 1", "sagad.toml:2:13: store.cache_mib: 1 is out of range", "from 8 to 65536"),
        ("[store]\nretain = \"0s\"", "sagad.toml:2:10: store.retain: is zero", "\"30d\""),
        ("[store]\ndir = \"\"", "sagad.toml:2:7: store.dir: is empty", "name a folder"),
        ("[limits]\ninput_max_bytes = 1", "sagad.toml:2:19: limits.input_max_bytes: ", "from 1024"),
        (
            "[limits]\nsaga_max_bytes = 70_000",
            "sagad.toml:2:18: limits.saga_max_bytes: is less",
            "several times",
        ),
        ("[limits]\nmail_queue_max = 1", "sagad.toml:2:18: limits.mail_queue_max: ", "from 16"),
        ("[limits]\nrequest_timeout = \"0s\"", "sagad.toml:2:19: limits.request_timeout: ", "\"60s\""),
        ("[engine]\nshards = 0", "sagad.toml:2:10: engine.shards: 0 is out of range", "from 1 to 64"),
        ("[log]\nfilter = \"sagad=loud\"", "sagad.toml:2:10: log.filter: ", "info,sagad=debug"),
        ("sagas_dir = \"/no/such\"", "sagad.toml:1:13: sagas_dir: /no/such is not a folder", "create it"),
        (
            &format!("{participant}endpoint = \"https://a:1\""),
            "sagad.toml:4:12: participants[0].endpoint: https is not served",
            "correct the entry",
        ),
        (
            &format!("{participant}endpoint = \"http://a:1\"\nprotocol = \"http\""),
            "sagad.toml:3:12: participants[0].actions[0]: is required with PROTOCOL_HTTP",
            "correct the entry",
        ),
        (
            &format!("{participant}endpoint = \"http://a:1\"\nprotocol = \"grpc\""),
            "sagad.toml:3:12: participants[0].actions[0]: is required; write the full gRPC method",
            "correct the entry",
        ),
        (
            &format!(
                "{participant}endpoint = \"http://a:1\"\nprotocol = \"grpc\"\ndescriptor_set = \"/no/such\""
            ),
            "sagad.toml:6:18: participants[0].descriptor_set: /no/such cannot be read: ",
            "correct the entry",
        ),
    ];
    for (text, start, remedy) in cases {
        let said = problems(text);
        assert_eq!(said.len(), 1, "{text:?} said {said:?}");
        assert!(said[0].starts_with(start), "{text:?} said {:?}", said[0]);
        assert!(said[0].contains(remedy), "{text:?} said {:?}", said[0]);
    }
}

#[test]
fn all_problems_are_found_at_once_and_a_missing_field_is_looked_for_in_its_entry() {
    let said = problems(
        "[engine]\nshards = 0\nbatch_max = 0\n[[participants]]\nname = \"a.b\"\nendpoint = \"http://a:1\"\nactions = [\"x\", \"y z\"]",
    );
    assert_eq!(said.len(), 4, "{said:?}");
    assert!(said[2].starts_with("sagad.toml:5:8: participants[0].name: "), "{}", said[2]);
    assert!(said[3].starts_with("sagad.toml:7:17: participants[0].actions[1]: "), "{}", said[3]);
}

#[test]
fn an_entry_that_stands_twice_is_a_problem() {
    let entry = "[[participants]]\nname = \"stock\"\nendpoint = \"http://a:1\"\nactions = [\"deduct\"]\n";
    let said = problems(&format!("{entry}{entry}"));
    assert_eq!(said.len(), 1);
    assert!(said[0].starts_with("sagad.toml:7:12: participants[1].endpoint: "), "{}", said[0]);
}

#[test]
fn a_flag_wins_over_the_file_and_is_not_looked_for_in_it() {
    let mut config = parse("[server]\ngrpc_addr = \"127.0.0.1:9\"").unwrap();
    config.override_with(Overrides {
        grpc_addr: Some(SocketAddr::from(([10, 0, 0, 1], 9))),
        store: Some(StoreKind::Memory),
        ..Overrides::default()
    });
    assert_eq!(config.store.kind, StoreKind::Memory);
    let said: Vec<String> = config.validate().iter().map(ToString::to_string).collect();
    assert_eq!(said.len(), 1);
    assert!(said[0].starts_with("server.grpc_addr: 10.0.0.1:9 can be reached"), "{}", said[0]);
    config.override_with(Overrides { allow_insecure: true, ..Overrides::default() });
    assert_eq!(config.validate(), []);
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let said = Config::load(Path::new("/no/such/sagad.toml")).unwrap_err().to_string();
    assert!(said.starts_with("/no/such/sagad.toml: cannot be read: "), "{said}");
}

#[test]
fn an_action_is_a_name_or_a_table_with_its_target() {
    let entry = |actions: &str| {
        format!("[[participants]]\nname = \"stock\"\nendpoint = \"http://a:1\"\nactions = [{actions}]\n")
    };
    let read = |actions: &str| Config::parse(&entry(actions), Path::new("sagad.toml"));
    let both =
        read(r#""restore", { name = "deduct", target = "shop.Stock/Deduct", refused_on = ["NOT_FOUND"] }"#);
    let handlers = both.unwrap().participants[0].handlers().unwrap();
    let targets: Vec<_> = handlers.actions.iter().map(|(name, to)| (name.as_str(), &*to.target)).collect();
    assert_eq!(targets, [("deduct", "shop.Stock/Deduct"), ("restore", "")]);

    let nameless = read(r#"{ name = "a b" }"#).unwrap().validate();
    assert_eq!(nameless[0].field, "participants[0].actions[0].name");
    assert_eq!(nameless[0].place.map(|(line, _)| line), Some(4));
    let misspelt = read(r#"{ name = "deduct", goal = "x" }"#).unwrap_err();
    assert!(misspelt.problem.contains("neither a name nor a table"), "{misspelt}");
}

#[test]
fn a_descriptor_set_is_read_and_its_targets_are_looked_up() {
    let folder = tempfile::tempdir().unwrap();
    let set = folder.path().join("sagad.binpb");
    std::fs::write(&set, crate::proto::FILE_DESCRIPTOR_SET).unwrap();
    let entry = |file: &Path, method: &str| {
        format!(
            "[[participants]]\nname = \"a\"\nendpoint = \"http://a:1\"\nprotocol = \"grpc\"\ndescriptor_set = {:?}\n\
             actions = [{{ name = \"x\", target = \"sagad.v1.SagaService/{method}\" }}]",
            file.display().to_string()
        )
    };
    assert!(problems(&entry(&set, "GetSaga")).is_empty());
    let said = problems(&entry(&set, "GetSga"));
    assert!(said[0].starts_with("sagad.toml:6:35: participants[0].actions[0].target: "), "{}", said[0]);
    assert!(said[0].contains("did you mean GetSaga?"), "{}", said[0]);
    std::fs::write(&set, "garbage").unwrap();
    let said = problems(&entry(&set, "GetSaga"));
    assert!(said[0].contains("participants[0].descriptor_set: is no descriptor set"), "{}", said[0]);
}
