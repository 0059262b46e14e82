//! An answer that arrives: what a repeated call has to be told, and what a node makes of it.

use circuitry_core::Answer;
use circuitry_core::request::{JudgedBy, Verdict};

use crate::archive::{Archive, Broken, Ruling};
use crate::calls::{Ask, Call, Named, Snap, Stored, offset};
use crate::rules::{demand, is_already_applied, transitions_of};
use crate::world::{Held, Node};

/// Whether an entry that was loaded may grant what this answer denies; the contract has the host load one then.
pub(crate) fn denies(answer: &Answer) -> bool {
    match answer {
        Answer::Settled { dispositions, .. } => dispositions.iter().any(|one| one.stale > 0),
        Answer::Renewed(deadlines) => deadlines.iter().any(Option::is_none),
        Answer::Voted { accepted, .. } => !accepted,
        _ => false,
    }
}

/// Properties 2 and 4 over several runs of one call: it is applied once, and whoever asks again is told what the first was.
pub(crate) fn check_repeated(
    archive: &Archive,
    call: &Call,
    seen: Option<Snap>,
    ruling: u32,
) -> Result<(), Broken> {
    let ruling = archive.ruling(ruling);
    let broken = |rule: &str| {
        format!("{rule}\n  {call:?}\n  on {:?}: {ruling:?}", seen.map(|seen| archive.record(seen.record)))
    };
    let Some(answer) = ruling.answer() else { return Ok(()) };
    match call.stored {
        Stored::No => demand(
            !is_already_applied(answer),
            "property 2: a call that was never applied is said to have been",
        )
        .and_then(|()| {
            let is_told = matches!(ruling, Ruling::Done(_)) && !transitions_of(answer).is_empty();
            demand(!is_told, "property 4: a call that wrote nothing is told of a transition")
        })
        .map_err(|rule| broken(&rule)),
        // What it may be told depends on when it loaded; that it counts nothing twice is seen at the write.
        Stored::Lost { .. } => Ok(()),
        // The entry is from before: the swap will fail, or there is nothing to write.
        Stored::At { version, .. } if seen.is_none_or(|seen| seen.version < version) => Ok(()),
        Stored::At { ruling: first, .. } => {
            let Some(first) = archive.ruling(first).answer() else { return Ok(()) };
            let told = transitions_of(answer);
            let is_kept = transitions_of(first).iter().all(|transition| told.contains(transition));
            demand(is_kept, "property 4: a repeated call is not told again what it changed")
                .and_then(|()| {
                    let is_alike = match (first, answer) {
                        (
                            Answer::Settled { dispositions: first, .. },
                            Answer::Settled { dispositions, .. },
                        ) => first == dispositions,
                        (Answer::Voted { accepted: first, .. }, Answer::Voted { accepted, .. }) => {
                            first == accepted
                        }
                        _ => true,
                    };
                    let is_again = matches!(ruling, Ruling::Done(_)) && is_already_applied(answer);
                    let is_remembered = call.named.ask.is_remembered();
                    demand(
                        !is_remembered || (is_again && is_alike),
                        "property 2: a repeated call is not answered as the first",
                    )
                })
                .map_err(|rule| broken(&rule))
        }
    }
}

/// What a node makes of its answer.
pub(crate) fn deliver(node: &mut Node, named: &Named, answer: &Answer) {
    match (answer, named.ask) {
        (Answer::Started { verdict: Verdict::Permit(permit), .. }, _)
            if permit.judged_by != JudgedBy::Nobody =>
        {
            let held = Held {
                era: offset(permit.era),
                start: named.serial,
                until: permit.probe.map(|probe| offset(probe.deadline_ms)),
                by_node: permit.judged_by == JudgedBy::Node,
            };
            match &mut node.held {
                [place @ None, _] | [_, place] => *place = Some(held),
            }
        }
        (Answer::Renewed(deadlines), Ask::Renew { start, .. }) => {
            let own = node.held.iter_mut().flatten().find(|held| held.start == start);
            if let (Some(own), [Some(deadline_ms)]) = (own, deadlines.as_slice()) {
                own.until = Some(offset(*deadline_ms));
            }
        }
        _ => {}
    }
}
