//! How fast the API server answers, against the times of a session; and its clock.

use std::time::{Duration, Instant, SystemTime};

use http::{Request, header::DATE};
use kube::client::Body;
use responder_leadership::settings::Times;

use super::{
    super::{
        Finding,
        Verdict::{Bad, Limited, Ok as Fine},
    },
    Options,
};
use crate::{
    cluster::client::text,
    operator::Operator,
    overview::{ClusterView, Life},
};

/// So many requests are timed.
const SAMPLES: usize = 10;
/// An answer must have come by then.
const ANSWER: Duration = Duration::from_secs(5);
/// The Date header counts seconds; what is more apart is told.
const NOTICED: Duration = Duration::from_secs(2);
/// So far apart, credentials may be taken for expired, or not valid yet.
const HARMFUL: Duration = Duration::from_secs(60);
/// What agents have if nothing else is said.
const USUAL_LEASE: Duration = Duration::from_secs(3);

/// One request.
struct Sample {
    took: Duration,
    /// How far the API server's clock is from this machine's, for certain.
    skew: Option<Duration>,
    /// It is ahead of this machine's.
    ahead: bool,
}

/// Whether the API server answers.
pub(super) async fn reach(operator: &Operator) -> Finding {
    let asked = tokio::time::timeout(ANSWER, operator.client.apiserver_version());
    match asked.await {
        Ok(Ok(version)) => {
            Finding::new("API server", Fine, format!("answers, version {}", version.git_version))
        }
        Ok(Err(error)) => Finding::new("API server", Bad, format!("cannot be used: {}", text(&error))),
        Err(_) => Finding::new(
            "API server",
            Bad,
            format!("does not answer within {ANSWER:?}; is --kubeconfig right?"),
        ),
    }
}

pub(super) async fn check(operator: &Operator, options: &Options, view: &ClusterView) -> Vec<Finding> {
    let mut samples = Vec::new();
    for _ in 0..SAMPLES {
        match sample(operator).await {
            Ok(sample) => samples.push(sample),
            Err(error) => {
                let text = format!(
                    "of {SAMPLES} reads of a Lease, one after the other, number {} failed: {error}",
                    samples.len() + 1
                );
                return vec![Finding::new("latency", Bad, text)];
            }
        }
    }
    vec![clock(&samples), latency(&samples, options, view)]
}

/// Reads the cluster's record, as agents do, whether it is there or not.
async fn sample(operator: &Operator) -> Result<Sample, String> {
    let path = format!("/apis/coordination.k8s.io/v1/namespaces/{}/leases/cluster", operator.namespace);
    let request = Request::get(path).body(Body::empty()).map_err(|error| error.to_string())?;
    let (began, began_at) = (Instant::now(), SystemTime::now());
    let asked = async {
        let response = operator.client.send(request).await?;
        let date = response.headers().get(DATE).and_then(|date| date.to_str().ok()).and_then(date);
        // The connection is free again when all has been read.
        let body = http_body_util::BodyExt::collect(response.into_body()).await?;
        drop(body);
        Ok::<_, kube::Error>(date)
    };
    let date = match tokio::time::timeout(ANSWER, asked).await {
        Ok(Ok(date)) => date,
        Ok(Err(error)) => return Err(text(&error)),
        Err(_) => return Err(format!("no answer within {ANSWER:?}")),
    };
    let (took, ended_at) = (began.elapsed(), SystemTime::now());
    let Some(date) = date else {
        return Ok(Sample { took, skew: None, ahead: false });
    };
    // The server's clock was within this second at some time between both of ours.
    let later = date.duration_since(ended_at).ok();
    let earlier = began_at.duration_since(date + Duration::from_secs(1)).ok();
    Ok(Sample { took, skew: Some(later.or(earlier).unwrap_or_default()), ahead: later.is_some() })
}

fn date(text: &str) -> Option<SystemTime> {
    let at = k8s_openapi::jiff::fmt::rfc2822::parse(text).ok()?;
    Some(at.timestamp().into())
}

fn clock(samples: &[Sample]) -> Finding {
    let least = samples.iter().filter_map(|sample| Some((sample.skew?, sample.ahead))).min();
    let Some((skew, ahead)) = least else {
        return Finding::new(
            "clocks",
            Limited,
            "the API server sends no Date header: its clock is not known",
        );
    };
    let way = if ahead { "ahead of" } else { "behind" };
    let secs = skew.as_secs_f64();
    let fine = "no clock of another machine decides anything, but ages that are shown are wrong by as much, and so may be \
                the lifetimes of credentials: run NTP on both";
    if skew >= HARMFUL {
        let text = format!("the API server's clock is {secs:.0} s {way} this machine's: {fine}");
        Finding::new("clocks", Bad, text)
    } else if skew >= NOTICED {
        Finding::new(
            "clocks",
            Limited,
            format!("the API server's clock is {secs:.1} s {way} this machine's: {fine}"),
        )
    } else {
        Finding::new("clocks", Fine, "the API server's and this machine's differ by less than two seconds")
    }
}

fn latency(samples: &[Sample], options: &Options, view: &ClusterView) -> Finding {
    let mut took: Vec<Duration> = samples.iter().map(|sample| sample.took).collect();
    took.sort();
    let (median, slowest) = (took[took.len() / 2], took[took.len() - 1]);
    let (lease, whose) = lease(options, view);
    let mut times = Times::of(lease);
    times.renew_interval = options.renew_interval.unwrap_or(times.renew_interval);
    times.idle_renew_interval = times.idle_renew_interval.max(times.renew_interval);
    if let Err(error) = times.check() {
        return Finding::new("latency", Bad, error.to_string());
    }
    judge(median, slowest, &times, whose)
}

/// The lease duration, and where it is from.
fn lease(options: &Options, view: &ClusterView) -> (Duration, &'static str) {
    if let Some(lease) = options.lease_duration {
        return (lease, "as given");
    }
    let live = view.sessions.iter().filter(|session| session.life == Life::Live);
    let shortest = live.filter_map(|session| session.lease_ms).min();
    // An idle session says that it is good for longer.
    let known = shortest.map(Duration::from_millis).filter(|lease| Times::of(*lease).check().is_ok());
    known.map_or((USUAL_LEASE, "the default"), |lease| (lease, "of the agents that run"))
}

fn judge(median: Duration, slowest: Duration, times: &Times, whose: &str) -> Finding {
    let timeout = times.request_timeout();
    let Times { lease_duration, renew_interval, .. } = times;
    let facts = format!(
        "{SAMPLES} reads of a Lease took {median:.1?} in the median and {slowest:.1?} at most; a renewal must be done within \
         {timeout:.1?} (two thirds of --renew-interval {renew_interval:.1?}, a quarter of --lease-duration \
         {lease_duration:.1?}, {whose}, unless given)"
    );
    // A write takes longer than a read, and a busy moment longer than a calm one.
    let enough = Duration::from_millis(
        100 * u64::try_from((slowest * 12).as_millis().div_ceil(100)).unwrap_or(u64::MAX),
    );
    if slowest >= timeout {
        let text = format!(
            "{facts}: renewals fail, and so do answers; --lease-duration {enough:?} would have twice the time"
        );
        Finding::new("latency", Bad, text)
    } else if slowest * 2 > timeout {
        let text = format!(
            "{facts}: little is left for a busy moment; --lease-duration {enough:?} would have twice the time"
        );
        Finding::new("latency", Limited, text)
    } else {
        Finding::new("latency", Fine, facts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_read() {
        let at = date("Sat, 21 Nov 2026 12:00:00 GMT").unwrap();
        let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap();
        assert_eq!(since.as_secs(), 1_795_262_400);
        assert_eq!(date("yesterday"), None);
    }

    #[test]
    fn clocks_are_judged_by_the_least_that_is_certain() {
        let sample =
            |ms, ahead| Sample { took: Duration::ZERO, skew: Some(Duration::from_millis(ms)), ahead };
        assert_eq!(clock(&[sample(1500, true), sample(900, true)]).verdict, Fine);
        let late = clock(&[sample(5000, false), sample(4200, false)]);
        assert_eq!(late.verdict, Limited);
        assert!(late.text.contains("4.2 s behind"), "{late:?}");
        assert_eq!(clock(&[sample(90_000, true)]).verdict, Bad);
        let none = Sample { took: Duration::ZERO, skew: None, ahead: false };
        assert_eq!(clock(&[none]).verdict, Limited);
    }

    #[test]
    fn latency_is_judged_against_the_lease() {
        let ms = Duration::from_millis;
        let times = Times::of(ms(1200)); // 300 ms, thus 200 ms for a request
        let of = |slowest| judge(ms(1), ms(slowest), &times, "as given");
        assert_eq!(of(99).verdict, Fine);
        assert_eq!(of(101).verdict, Limited);
        let bad = of(250);
        assert_eq!(bad.verdict, Bad);
        for wanted in ["250.0ms at most", "within 200.0ms", "--lease-duration 3s would"] {
            assert!(bad.text.contains(wanted), "{wanted}: {bad:?}");
        }
    }
}
