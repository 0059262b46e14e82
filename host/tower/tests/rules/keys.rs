//! Which circuit a request has, and which requests have none.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use circuitry::Factory;
use circuitry_tower::{
    CircuitBreakerLayer, CircuitKey, Key, KeyError, KeyProblem, Part, Rejection, RequestHead, RequestKey,
};
use http::{HeaderName, HeaderValue, Request, StatusCode};
use http_body_util::BodyExt;
use tower::{Layer, ServiceExt, service_fn};

use crate::world::{Script, TENANT, World, key, response};

/// The name under which the circuit of a request is shared.
fn name(world: &World, key: &impl RequestKey, request: &Request<()>) -> Result<String, KeyError> {
    let key = key.key(&RequestHead::of(request))?;
    Ok(world.factory.breaker_for(key.name(), key.context()).name().to_owned())
}

fn of_tenant(value: &[u8]) -> Request<()> {
    Request::builder().header(TENANT, value).body(()).expect("a request")
}

#[tokio::test]
async fn two_tenants_never_share_a_circuit_whatever_their_names() {
    let world = World::new().await;
    let tenants = [
        "a",
        "A",
        "b",
        "a/b",
        "a%2Fb",
        "a%2fb",
        "a%252Fb",
        "a%",
        "a%25",
        "%",
        "/",
        "//",
        "a b",
        "a%20b",
        "a\u{e4}",
        "..",
        "*",
        "circuitry:a",
        "orders/a",
        "{a}",
        "a\u{300}",
        "\u{e0}",
    ];
    let names: BTreeSet<_> = tenants
        .iter()
        .map(|tenant| name(&world, &key(), &of_tenant(tenant.as_bytes())).expect("a circuit"))
        .collect();
    assert_eq!(names.len(), tenants.len(), "{names:?}");
}

#[tokio::test]
async fn parts_of_a_name_do_not_run_into_each_other() {
    let world = World::new().await;
    let (left, right) = (HeaderName::from_static("left"), HeaderName::from_static("right"));
    let key = CircuitKey::of(Part::header(left.clone())).and(Part::header(right.clone()));
    let values = ["a", "a b", "b", "b a", "a%20b", "%", "%20", "a/b", "a%2Fb", "b/a"];
    let mut names = BTreeSet::new();
    for first in values {
        for second in values {
            let request = Request::builder().header(&left, first).header(&right, second).body(());
            names.insert(name(&world, &key, &request.expect("a request")).expect("a circuit"));
        }
    }
    assert_eq!(names.len(), values.len() * values.len());
}

#[tokio::test]
async fn a_request_without_a_usable_tenant_is_refused_and_has_nobodys_circuit() {
    let world = World::new().await;
    let asked = Arc::new(AtomicU64::new(0));
    let asks = asked.clone();
    let service =
        CircuitBreakerLayer::new(world.factory.clone(), key()).layer(service_fn(move |_: Request<()>| {
            asks.fetch_add(1, Ordering::SeqCst);
            std::future::ready(Ok::<_, std::convert::Infallible>(response(200, Script::default())))
        }));
    let long = vec![b'a'; 65_536];
    let too_long = |bytes| KeyProblem::TooLong { bytes, most_bytes: 1024 };
    let hostile: [(&[u8], KeyProblem); 7] = [
        (b"", KeyProblem::Empty),
        (b"\xff\xfe\x80", KeyProblem::NotUtf8),
        (b"a\xed\xa0\x80", KeyProblem::NotUtf8),
        (b"a\tb", KeyProblem::ControlCharacter),
        ("a\u{85}b".as_bytes(), KeyProblem::ControlCharacter),
        (&long, too_long(65_536)),
        (&[b'/'; 400], too_long(1_207)),
    ];
    for (value, problem) in hostile {
        let answer = service.clone().oneshot(of_tenant(value)).await.expect("an answer");
        assert_eq!(answer.status(), StatusCode::BAD_REQUEST, "{problem}");
        assert!(!answer.headers().contains_key("retry-after"));
        let Some(Rejection::Key(error)) = answer.extensions().get() else { panic!("no rejection") };
        assert_eq!(error.problem(), &problem);
        let text = error.to_string() + "\n";
        let body = answer.into_body().collect().await.expect("a body").to_bytes();
        assert_eq!(body, text.as_bytes());
        assert!(text.len() < 120, "it says what is wrong and not the value: {text}");
    }
    for request in [
        Request::new(()),
        Request::builder().header(TENANT, "acme").header(TENANT, "birch").body(()).expect("a request"),
    ] {
        let answer = service.clone().oneshot(request).await.expect("an answer");
        assert_eq!(answer.status(), StatusCode::BAD_REQUEST);
    }
    assert_eq!(asked.load(Ordering::SeqCst), 0, "the service was asked");
    assert_eq!((world.store.loads(), world.store.swaps()), (0, 0), "a circuit was asked");
}

#[tokio::test]
async fn a_key_of_ones_own_is_held_to_the_same_bounds() {
    let world = World::new().await;
    let long = "a".repeat(1_025);
    let (name, tenant) = (long.clone(), long.clone());
    let keys: [Arc<dyn Fn() -> Key + Send + Sync>; 4] = [
        Arc::new(|| Key::new("")),
        Arc::new(|| Key::new("orders").tenant("")),
        Arc::new(move || Key::new(name.clone())),
        Arc::new(move || Key::new("orders").with("region", tenant.clone())),
    ];
    for key in keys {
        let key = move |_: &RequestHead<'_>| Ok(key());
        let service = CircuitBreakerLayer::new(world.factory.clone(), key)
            .layer(crate::world::answers(|| response(200, Script::default())));
        let answer = service.oneshot(Request::new(())).await.expect("an answer");
        assert_eq!(answer.status(), StatusCode::BAD_REQUEST);
    }
    assert_eq!((world.store.loads(), world.store.swaps()), (0, 0), "a circuit was asked");
}

#[tokio::test]
async fn a_name_that_a_name_function_makes_is_held_to_the_same_bounds() {
    for (name, problem) in [
        (String::new(), KeyProblem::Empty),
        ("a".repeat(1_025), KeyProblem::TooLong { bytes: 1_025, most_bytes: 1_024 }),
    ] {
        let settings = crate::world::settings().name_fn(move |_, _| name.clone()).build();
        let factory = Factory::new(settings.expect("usable settings")).await.expect("a factory");
        let service = CircuitBreakerLayer::new(factory, key())
            .layer(crate::world::answers(|| response(200, Script::default())));
        let answer = service.oneshot(of_tenant(b"acme")).await.expect("an answer");
        assert_eq!(answer.status(), StatusCode::BAD_REQUEST, "{problem}");
        let Some(Rejection::Key(error)) = answer.extensions().get() else { panic!("no rejection") };
        assert_eq!(error.problem(), &problem);
    }
}

#[tokio::test]
async fn the_longest_name_that_fits_is_a_circuit() {
    let world = World::new().await;
    let tenant = "a".repeat(1_024 - "orders/".len());
    let service = CircuitBreakerLayer::new(world.factory.clone(), key())
        .layer(crate::world::answers(|| response(200, Script::default())));
    let answer = service.oneshot(of_tenant(tenant.as_bytes())).await.expect("an answer");
    assert_eq!(answer.status(), StatusCode::OK);
}

#[tokio::test]
async fn a_host_is_one_circuit_however_it_is_spelt() {
    let world = World::new().await;
    let key = CircuitKey::of(Part::host());
    let by_uri = Request::get("http://Example.COM:80/a").body(()).expect("a request");
    let by_header = Request::get("/b").header("host", "example.com").body(()).expect("a request");
    let elsewhere = Request::get("http://example.com:81/").body(()).expect("a request");
    let names =
        [by_uri, by_header, elsewhere].map(|request| name(&world, &key, &request).expect("a circuit"));
    assert_eq!(names, ["example.com", "example.com", "example.com:81"]);
    let error = name(&world, &key, &Request::new(())).unwrap_err();
    assert_eq!(error.to_string(), "the host is missing");
}

#[tokio::test]
async fn what_a_request_has_learnt_can_be_its_key() {
    #[derive(Clone)]
    struct Login(&'static str);
    let world = World::new().await;
    let login =
        |request: &RequestHead<'_>| request.extensions().get::<Login>().map(|login| login.0.to_owned());
    let key = CircuitKey::named("orders").tenant(Part::computed("the login", login));
    let mut request = Request::new(());
    assert_eq!(name(&world, &key, &request).unwrap_err().to_string(), "the login is missing");
    request.headers_mut().insert(TENANT, HeaderValue::from_static("somebody else"));
    request.extensions_mut().insert(Login("acme"));
    assert_eq!(name(&world, &key, &request).as_deref(), Ok("orders/acme"));
}

#[tokio::test]
async fn a_route_of_axum_is_one_circuit_for_all_its_paths() {
    use axum::Router;
    use axum::body::Body;
    use axum::routing::get;

    let world = World::new().await;
    let key = CircuitKey::of(Part::matched_path());
    let down = || async { StatusCode::INTERNAL_SERVER_ERROR };
    let app = Router::new()
        .route("/orders/{id}", get(down))
        .route("/users/{id}", get(down))
        .route_layer(CircuitBreakerLayer::new(world.factory.clone(), key));
    let ask = |path: String| {
        let request = Request::get(path).body(Body::empty()).expect("a request");
        app.clone().oneshot(request)
    };
    for id in 0..3 {
        assert_eq!(ask(format!("/orders/{id}")).await.expect("an answer").status(), 500);
    }
    let refused = ask("/orders/another".into()).await.expect("an answer");
    assert_eq!(refused.status(), 503);
    assert_eq!(refused.headers()["retry-after"], "61");
    assert_eq!(ask("/users/1".into()).await.expect("an answer").status(), 500);
    assert_eq!(ask("/nowhere".into()).await.expect("an answer").status(), 404);
}
