//! A process that makes a factory and says how long that took, in nanoseconds. Its one argument, if given, is the folder
//! of compiled components.

use std::time::Instant;

use circuitry::{Factory, Settings};

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let begun = Instant::now();
    let mut settings = Settings::builder();
    if let Some(folder) = std::env::args_os().nth(1) {
        settings = settings.component_cache(folder);
    }
    let factory = Factory::new(settings.build().expect("settings")).await.expect("a factory");
    println!("{}", begun.elapsed().as_nanos());
    drop(factory);
}
