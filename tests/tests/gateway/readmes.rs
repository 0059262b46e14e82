//! The commands in the READMEs.

use std::path::Path;

use crate::client::get;
use crate::process::{Gateway, wasmtime};
use crate::servers::redis_url;
use crate::upstream::{Upstream, answer};

/// The command of a README that starts the gateway, with the addresses of this test in it.
fn command(readme: &str, upstream: &str) -> String {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(readme);
    let text = std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let (_, rest) = text.split_once("```sh\nwasmtime serve ").expect("a command that starts the gateway");
    let (arguments, _) = rest.split_once("```").expect("its end");
    let replaced = |text: &str, old: &str, new: &str| {
        assert!(text.contains(old), "{readme} has no {old}: {text}");
        text.replace(old, new)
    };
    let arguments = arguments.replace("--addr 0.0.0.0:8080 ", "");
    let arguments = replaced(&arguments, "redis://127.0.0.1:6379", &redis_url());
    let arguments = replaced(&arguments, "http://127.0.0.1:8082", upstream);
    format!("'{}' serve --addr 127.0.0.1:0 {arguments}", wasmtime().display())
}

#[tokio::test]
async fn the_commands_of_the_readmes_start_a_gateway() {
    for readme in ["README.md", "guest/gateway/README.md"] {
        let upstream = Upstream::start().await;
        upstream.will(answer(200, &[], b"well"));
        let gateway = Gateway::by_shell(&command(readme, &upstream.origin()));
        let got = get(gateway.address, "/", &[]).await;
        assert_eq!((got.status, got.text().as_str(), got.own()), (200, "well", None), "{readme}");
        gateway.assert_never_failed();
    }
}
