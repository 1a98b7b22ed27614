//! Certificates from an authority (ACME, RFC 8555): ordered when there is none, renewed in time, and laid where the configuration reads them.
//!
//! One task for each `acme` table. It looks at the certificate in the cache; when two thirds of its life are over, a bit earlier by chance, or
//! when the authority says that it is time (RFC 9773), it takes the cache's lock, orders, answers the challenges, writes, and asks for a
//! reload: from then on it is a certificate like any other. Gateways that share a cache take turns by the lock; those that did not order
//! notice the file and reload.
//!
//! What fails is said in the log and tried again, later each time. Nothing of it is on a request's path, and the certificate before stays.

use crate::config::Acme;
use crate::tls::challenges::{Challenges, Open};
use crate::tls::identity::issued_as;
use crate::tls::{Certificate, provider};
use crate::units::Rng;
use anyhow::{Context as _, anyhow, bail};
use instant_acme::{
    Account, AccountCredentials, AuthorizationStatus, CertificateIdentifier, ChallengeType, Identifier, NewAccount,
    NewOrder, OrderStatus, RetryPolicy,
};
use rand::RngExt as _;
use rcgen::{CertificateParams, CustomExtension, KeyPair};
use rustix::fs::{FlockOperation, flock};
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::sign::CertifiedKey;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::time::{sleep, timeout};

/// Between two looks at the certificate in the cache, and at the lock of somebody else.
const LOOK: Duration = Duration::from_secs(30);
/// After this share of its life a certificate is renewed; up to [`EARLIER`] of it sooner, so that those of one day do not all come at once.
const RENEW_AFTER: f64 = 2.0 / 3.0;
const EARLIER: f64 = 0.05;
/// Pauses after failures: this, twice that, and so on up to the last. Authorities count failures by the hour.
const PAUSE: Duration = Duration::from_secs(60);
const PAUSE_MAX: Duration = Duration::from_secs(6 * 3_600);
/// For a whole order.
const ORDER: Duration = Duration::from_secs(600);
/// Between two questions after the authority's own opinion (RFC 9773 §4.3).
const OPINION: Duration = Duration::from_secs(6 * 3_600);

/// Looks after one certificate until the task is ended. `reload` is called when there is another one.
pub(super) async fn keep(acme: Arc<Acme>, challenges: Arc<Challenges>, mut rng: Rng, reload: impl Fn()) {
    let earlier = rng.random_range(0.0..EARLIER);
    let (mut failures, mut seen) = (0, modified(&acme.chain()));
    let mut suggested = None;
    let mut opinion = Duration::ZERO;
    loop {
        let found = modified(&acme.chain());
        if found != seen {
            seen = found;
            tracing::info!("acme: {} has changed", acme.chain().display());
            reload();
        }
        let due = due_at(&acme, earlier);
        if now() < due.min(suggested.unwrap_or(i64::MAX)) {
            if opinion.is_zero() {
                suggested = timeout(ORDER, suggestion(&acme)).await.ok().flatten();
                opinion = OPINION;
            }
            opinion = opinion.saturating_sub(LOOK);
            sleep(LOOK).await;
            continue;
        }
        let lock = match locked(&acme.cache) {
            Ok(Some(lock)) => lock,
            Ok(None) => {
                sleep(LOOK).await;
                continue;
            }
            Err(error) => {
                tracing::error!("acme: {error:#}");
                sleep(LOOK).await;
                continue;
            }
        };
        if modified(&acme.chain()) != seen {
            continue; // somebody else was faster
        }
        let ordered = match timeout(ORDER, order(&acme, &challenges)).await {
            Ok(ordered) => ordered,
            Err(_) => Err(anyhow!("it has taken more than {ORDER:?}")),
        };
        drop(lock);
        match ordered {
            Ok(()) => {
                (failures, suggested, opinion) = (0, None, Duration::ZERO);
                seen = modified(&acme.chain());
                tracing::info!("acme: a certificate for {} was issued", acme.names.join(", "));
                reload();
            }
            Err(error) => {
                let pause = pause(failures, &mut rng);
                failures = failures.saturating_add(1);
                let (names, directory) = (acme.names.join(", "), &acme.directory);
                tracing::error!("acme: no certificate for {names} from {directory}: {error:#}; again in {pause:.0?}");
                sleep(pause).await;
            }
        }
    }
}

/// Full jitter above a half, so that gateways do not come back together.
fn pause(failures: u32, rng: &mut Rng) -> Duration {
    let pause = PAUSE.saturating_mul(1 << failures.min(16)).min(PAUSE_MAX);
    pause.mul_f64(rng.random_range(0.5..1.0))
}

#[expect(
    clippy::disallowed_methods,
    reason = "certificates are dated by the wall's clock; the control plane may read it"
)]
fn now() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_secs()).unwrap_or(i64::MAX)
}

fn modified(path: &Path) -> Option<SystemTime> {
    std::fs::metadata(path).and_then(|found| found.modified()).ok()
}

fn in_cache(acme: &Acme) -> Option<Certificate> {
    let (chain, key) = (std::fs::read(acme.chain()).ok()?, std::fs::read(acme.key()).ok()?);
    Certificate::read(&chain, &key, None).ok()
}

/// When the certificate in the cache is to be renewed, in seconds since 1970; long ago where there is none, or one for other names.
fn due_at(acme: &Acme, earlier: f64) -> i64 {
    let Some(certificate) = in_cache(acme) else { return i64::MIN };
    if !acme.names.iter().all(|name| certificate.names.contains(name)) {
        return i64::MIN;
    }
    let life = certificate.not_after.saturating_sub(certificate.not_before);
    certificate.not_before.saturating_add((life as f64 * (RENEW_AFTER - earlier)) as i64)
}

/// When the authority would have it renewed, if it says so.
async fn suggestion(acme: &Acme) -> Option<i64> {
    let certificate = in_cache(acme)?;
    let (authority, serial) = issued_as(certificate.key.cert.first()?)?;
    let id = CertificateIdentifier::new(authority.into(), serial.into());
    let (info, _) = account(acme).await.ok()?.renewal_info(&id).await.ok()?;
    Some(info.suggested_window.start.unix_timestamp())
}

/// The cache's lock, as long as the file is open; `None`: another gateway has it.
fn locked(cache: &Path) -> anyhow::Result<Option<File>> {
    std::fs::create_dir_all(cache).with_context(|| format!("{} cannot be made", cache.display()))?;
    let path = cache.join("lock");
    let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path);
    let file = file.with_context(|| path.display().to_string())?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(file)),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
        Err(error) => Err(error).with_context(|| path.display().to_string()),
    }
}

/// The account in the cache, or a new one.
async fn account(acme: &Acme) -> anyhow::Result<Account> {
    let builder = match &acme.directory_ca {
        Some(ca) => Account::builder_with_root(ca),
        None => Account::builder(),
    };
    let builder = builder.context("no client for the directory")?;
    let path = acme.cache.join("account.json");
    if let Ok(text) = std::fs::read(&path) {
        let kept: AccountCredentials = serde_json::from_slice(&text).with_context(|| path.display().to_string())?;
        return Ok(builder.from_credentials(kept).await?);
    }
    let contact: Vec<_> = acme.contact.iter().map(String::as_str).collect();
    let wanted = NewAccount { contact: &contact, terms_of_service_agreed: true, only_return_existing: false };
    let (account, kept) = builder.create(&wanted, acme.directory.clone(), None).await.context("no account")?;
    replace(&path, &serde_json::to_vec(&kept)?)?;
    Ok(account)
}

/// Orders, proves, fetches and writes a certificate.
async fn order(acme: &Acme, challenges: &Arc<Challenges>) -> anyhow::Result<()> {
    let account = account(acme).await?;
    let names: Vec<_> = acme.names.iter().map(|name| Identifier::Dns(name.clone())).collect();
    let mut order = account.new_order(&NewOrder::new(&names)).await.context("no order")?;
    let kind = if acme.is_http { ChallengeType::Http01 } else { ChallengeType::TlsAlpn01 };
    let mut answered: Vec<Open> = Vec::new();
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization?;
        match authorization.status {
            AuthorizationStatus::Valid => continue,
            AuthorizationStatus::Pending => {}
            status => bail!("an authorization is {status:?}"),
        }
        let mut challenge = authorization.challenge(kind.clone()).context("the authority offers another challenge")?;
        let proof = challenge.key_authorization();
        answered.push(match kind {
            ChallengeType::Http01 => challenges.answer_with(challenge.token.clone(), proof.as_str().to_owned()),
            _ => {
                let name = challenge.identifier().to_string();
                challenges.show(&name, proving(&name, proof.digest().as_ref())?)
            }
        });
        challenge.set_ready().await?;
    }
    match order.poll_ready(&RetryPolicy::default()).await? {
        OrderStatus::Ready => {}
        status => {
            bail!("the order is {status:?}: does each name lead to this gateway, and from where the authority is?")
        }
    }
    let key = KeyPair::generate()?;
    let request = CertificateParams::new(acme.names.clone())?.serialize_request(&key)?;
    order.finalize_csr(request.der()).await?;
    let chain = order.poll_certificate(&RetryPolicy::default()).await?;
    let key = key.serialize_pem();
    Certificate::read(chain.as_bytes(), key.as_bytes(), None).context("what was issued is of no use")?;
    // whoever reads one of them between the two finds that they do not belong together, and keeps what it has
    replace(&acme.key(), key.as_bytes())?;
    replace(&acme.chain(), chain.as_bytes())
}

/// The certificate that proves a name (RFC 8737 §3). Its proof is in an extension that nobody else understands, so it is not looked at.
fn proving(name: &str, digest: &[u8]) -> anyhow::Result<Arc<CertifiedKey>> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new(vec![name.to_owned()])?;
    params.custom_extensions.push(CustomExtension::new_acme_identifier(digest));
    let made = params.self_signed(&key)?;
    let key = PrivatePkcs8KeyDer::from(key.serialize_der());
    let key = provider().key_provider.load_private_key(key.into())?;
    Ok(Arc::new(CertifiedKey::new(vec![made.der().clone()], key)))
}

/// Writes a file that only its owner may read, all of it or nothing.
fn replace(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let beside = path.with_extension("new");
    let write = || {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&beside, path)
    };
    write().with_context(|| format!("{} cannot be written", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng as _;

    fn acme(cache: &Path) -> Acme {
        Acme {
            directory: "https://acme.invalid/".to_owned(),
            directory_ca: None,
            contact: Vec::new(),
            names: vec!["a.example".to_owned()],
            is_http: false,
            cache: cache.to_owned(),
        }
    }

    #[test]
    fn a_certificate_is_due_at_two_thirds_of_its_life_or_where_it_is_for_other_names() {
        let dir = tempfile::tempdir().unwrap();
        let acme = acme(dir.path());
        assert_eq!(due_at(&acme, 0.0), i64::MIN, "there is none");
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["a.example".to_owned()]).unwrap();
        (params.not_before, params.not_after) = (rcgen::date_time_ymd(2026, 1, 1), rcgen::date_time_ymd(2026, 4, 1));
        let made = params.self_signed(&key).unwrap();
        replace(&acme.key(), key.serialize_pem().as_bytes()).unwrap();
        replace(&acme.chain(), made.pem().as_bytes()).unwrap();
        let begin = 1_767_225_600;
        assert_eq!(due_at(&acme, 0.0), begin + 60 * 86_400);
        assert!((begin + 55 * 86_400..begin + 60 * 86_400).contains(&due_at(&acme, EARLIER)));
        let other = Acme { names: vec!["a.example".to_owned(), "b.example".to_owned()], ..acme };
        assert_eq!(due_at(&other, 0.0), i64::MIN);
    }

    #[test]
    fn pauses_grow_and_end() {
        let mut rng = Rng::seed_from_u64(1);
        for (failures, longest) in [(0, 60), (1, 120), (5, 1_920), (9, 21_600), (40, 21_600)] {
            let pause = pause(failures, &mut rng).as_secs_f64();
            let longest = f64::from(longest);
            assert!(longest / 2.0 <= pause && pause < longest, "{failures}: {pause}");
        }
    }

    #[test]
    fn one_gateway_has_the_lock_of_a_cache() {
        let dir = tempfile::tempdir().unwrap();
        let first = locked(dir.path()).unwrap();
        assert!(first.is_some());
        assert!(locked(dir.path()).unwrap().is_none());
        drop(first);
        assert!(locked(dir.path()).unwrap().is_some());
    }
}
