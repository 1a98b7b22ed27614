//! Certificates from an authority (ACME, RFC 8555): ordered when there is none, renewed in time, and laid where the configuration reads them.
//!
//! One task for each `acme` table. It looks at the certificate in the cache; when it is due ([`schedule`]), it takes the cache's lock, orders,
//! answers the challenges, writes ([`cache`]), and asks for a reload: from then on it is a certificate like any other. Gateways that share a
//! cache take turns by the lock; those that did not order answer challenges all the same ([`proofs`]), notice the file and reload.
//!
//! What fails is said in the log and tried again, later each time. Nothing of it is on a request's path, and the certificate before stays.

mod cache;
mod directory;
mod proofs;
mod schedule;

use crate::config::Acme;
use crate::tls::challenges::{Challenges, Open};
use crate::tls::identity::issued_as;
use crate::tls::{Certificate, provider};
use crate::units::Rng;
use anyhow::{Context as _, anyhow, bail};
use cache::UnderWay;
use directory::{Asked, Directory};
use instant_acme::{
    Account, AuthorizationStatus, CertificateIdentifier, ChallengeStatus, ChallengeType, Error, Identifier, NewAccount,
    NewOrder, Order, OrderStatus, RetryPolicy,
};
use proofs::{Borrowed, Lent, Proof, SEEN_BY_ALL};
use rcgen::{CertificateParams, CustomExtension, KeyPair};
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::sign::CertifiedKey;
use schedule::{Attempts, Schedule, Span};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::time::{sleep, timeout};

/// Between two looks at what others have put into the cache.
const TICK: Duration = Duration::from_millis(250);
/// So many of those between two looks at whether the certificate is due, and at the lock of somebody else: 30 seconds.
const TICKS_A_LOOK: u32 = 120;
/// For a whole order, and for each of the two waits within it.
const ORDER: Duration = Duration::from_secs(600);
const POLL: RetryPolicy = RetryPolicy::new().timeout(Duration::from_secs(120));

/// Looks after one certificate until the task is ended. `used` is the fingerprint of the one in use, `reload` is called when there is another
/// one.
pub(super) async fn keep(
    acme: Arc<Acme>,
    mut used: String,
    challenges: Arc<Challenges>,
    mut rng: Rng,
    reload: impl Fn(),
) {
    let (mut schedule, mut unkept) = (Schedule::new(&mut rng), Attempts::default());
    let (mut borrowed, mut seen, mut ticks) = (Borrowed::default(), None, 0);
    loop {
        borrowed.look(&acme, &challenges);
        let written = cache::modified(&acme.chain());
        // one that cannot be read yet is looked at again; the one in use stays
        if written != seen
            && let Some((found, _)) = cache::certificate(&acme)
        {
            seen = written;
            if found.fingerprint != used {
                used = found.fingerprint;
                schedule.on_replaced();
                tracing::info!("acme: {} has changed", acme.chain().display());
                reload();
            }
        }
        if ticks == 0 {
            if schedule.wants_opinion(now())
                && let Some((certificate, _)) = cache::certificate(&acme)
            {
                let said = timeout(ORDER, opinion(&acme, &certificate)).await.ok().flatten();
                schedule.on_opinion(said, now());
            }
            if is_due(&acme, &schedule)
                && let Err(error) = renew(&acme, &challenges, (&mut schedule, &mut unkept), &mut rng).await
            {
                tracing::error!("acme: {error:#}");
            }
        }
        ticks = (ticks + 1) % TICKS_A_LOOK;
        sleep(TICK).await;
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "certificates are dated by the wall's clock; the control plane may read it"
)]
fn now() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_secs()).unwrap_or(i64::MAX)
}

/// Whether it is time for another certificate: by its life, because it is for other names, or because another directory has issued it.
fn is_due(acme: &Acme, schedule: &Schedule) -> bool {
    let certificate = cache::certificate(acme);
    let (_, is_of_another) = cache::attempts(acme);
    let for_all = |certificate: &Certificate| acme.names.iter().all(|name| certificate.names.contains(name));
    let life = certificate.filter(|(certificate, _)| for_all(certificate) && !is_of_another).map(|(_, life)| life);
    now() >= schedule.due_at(life)
}

/// When the authority would have it renewed, if it says so, and after which time it may be asked again.
async fn opinion(acme: &Acme, certificate: &Certificate) -> Option<(Span, Duration)> {
    let id = identifier(certificate)?;
    let (info, again) = account(acme, &Asked::default()).await.ok()?.renewal_info(&id).await.ok()?;
    let window = info.suggested_window;
    Some(((window.start.unix_timestamp(), window.end.unix_timestamp()), again))
}

/// By which authorities know it (RFC 9773 §4.1).
fn identifier(certificate: &Certificate) -> Option<CertificateIdentifier<'static>> {
    let (authority, serial) = issued_as(certificate.key.cert.first()?)?;
    Some(CertificateIdentifier::new(authority.into(), serial.into()).into_owned())
}

/// Orders another certificate, if nobody else does and it is time to try (again). `unkept` is what became of the last order, where that could
/// not be written into the cache.
///
/// # Errors
/// The cache is of no use. That there is room in it is seen before an authority is asked for anything: who cannot keep what it gets
/// would ask again and again.
async fn renew(
    acme: &Acme,
    challenges: &Arc<Challenges>,
    (schedule, unkept): (&mut Schedule, &mut Attempts),
    rng: &mut Rng,
) -> anyhow::Result<()> {
    let Some(_lock) = cache::locked(&acme.cache)? else { return Ok(()) };
    let (attempts, _) = cache::attempts(acme);
    let mut attempts = attempts.or_later(unkept);
    // somebody else may have been faster
    if !attempts.may_be_made(now()) || !is_due(acme, schedule) {
        return Ok(());
    }
    cache::find_room(acme)?;
    let _removed_when_this_is_over = Lent::left(acme);
    let (asked, was_under_way) = (Asked::default(), UnderWay::read(acme).is_some());
    let ordered = match timeout(ORDER, order(acme, challenges, &asked)).await {
        Ok(ordered) => ordered,
        Err(_) => Err(anyhow!("it has taken more than {ORDER:?}")),
    };
    let (names, directory) = (acme.names.join(", "), &acme.directory);
    match ordered {
        Ok(()) => {
            tracing::info!("acme: a certificate for {names} was issued");
            schedule.on_replaced();
            attempts.on_success();
            let _it_is_written_below = cache::keep_attempts(acme, &attempts);
            if is_due(acme, schedule) {
                let pause = attempts.on_failure(asked.take(), now(), rng);
                tracing::error!("acme: it is due at once, so one clock is wrong; again in {pause:.0?}");
            }
        }
        Err(error) => {
            // what was gone on with in vain is not gone on with again
            if was_under_way {
                UnderWay::remove(acme);
            }
            if is(&error, "accountDoesNotExist") {
                cache::put_account_aside(acme, "is not known to the authority");
            }
            let pause = attempts.on_failure(asked.take(), now(), rng);
            tracing::error!("acme: no certificate for {names} from {directory}: {error:#}; again in {pause:.0?}");
        }
    }
    let kept = cache::keep_attempts(acme, &attempts);
    *unkept = if kept.is_ok() { Attempts::default() } else { attempts };
    kept
}

/// Whether the authority has said this (RFC 8555 §6.7).
fn is(error: &anyhow::Error, problem: &str) -> bool {
    matches!(error.downcast_ref(), Some(Error::Api(said))
        if said.r#type.as_deref().and_then(|it| it.strip_prefix("urn:ietf:params:acme:error:")) == Some(problem))
}

/// The account in the cache, or a new one.
async fn account(acme: &Acme, asked: &Asked) -> anyhow::Result<Account> {
    let directory =
        Directory::try_new(acme.directory_ca.as_deref(), asked.clone()).context("no client for the directory")?;
    let builder = Account::builder_with_http(Box::new(directory));
    if let Some(kept) = cache::account(acme) {
        return builder.from_credentials(kept).await.context("no directory");
    }
    let contact: Vec<_> = acme.contact.iter().map(String::as_str).collect();
    let wanted = NewAccount { contact: &contact, terms_of_service_agreed: true, only_return_existing: false };
    let (account, kept) = builder.create(&wanted, acme.directory.clone(), None).await.context("no account")?;
    cache::keep_account(acme, &kept)?;
    Ok(account)
}

/// Orders, proves, fetches and writes a certificate; or goes on with that where somebody was interrupted.
async fn order(acme: &Acme, challenges: &Arc<Challenges>, asked: &Asked) -> anyhow::Result<()> {
    let account = account(acme, asked).await?;
    let (mut order, key) = match resumed(acme, &account).await {
        Some(resumed) => resumed,
        None => begun(acme, &account).await?,
    };
    if order.state().status == OrderStatus::Pending {
        let _answered = prove(acme, &mut order, challenges).await?;
        match order.poll_ready(&POLL).await? {
            OrderStatus::Ready => {}
            status => {
                bail!("the order is {status:?}: does each name lead to this gateway, and from where the authority is?")
            }
        }
    }
    if order.state().status == OrderStatus::Ready {
        let request = CertificateParams::new(acme.names.clone())?.serialize_request(&key)?;
        order.finalize_csr(request.der()).await?;
    }
    let chain = order.poll_certificate(&POLL).await?;
    let key = key.serialize_pem();
    let certificate =
        Certificate::read(chain.as_bytes(), key.as_bytes(), None).context("what was issued is of no use")?;
    if let Some(name) = acme.names.iter().find(|name| !certificate.names.contains(name)) {
        bail!("what was issued is not for {name}");
    }
    cache::keep_certificate(acme, &chain, &key)?;
    UnderWay::remove(acme);
    Ok(())
}

/// The order that somebody was interrupted with, if the authority still has it.
async fn resumed(acme: &Acme, account: &Account) -> Option<(Order, KeyPair)> {
    let kept = UnderWay::read(acme)?;
    let key = KeyPair::from_pem(&kept.key).ok()?;
    let mut order = account.order(kept.url).await.ok()?;
    let is_alive = order.state().status != OrderStatus::Invalid;
    is_alive.then_some((order, key))
}

/// A new order, in place of the certificate that is there (RFC 9773 §5) where the authority wants to know.
async fn begun(acme: &Acme, account: &Account) -> anyhow::Result<(Order, KeyPair)> {
    let names: Vec<_> = acme.names.iter().map(|name| Identifier::Dns(name.clone())).collect();
    let (wanted, before) = (NewOrder::new(&names), cache::certificate(acme));
    let replaced = before.and_then(|(certificate, _)| identifier(&certificate));
    let first = match replaced {
        Some(id) => Some(account.new_order(&NewOrder::new(&names).replaces(id)).await.map_err(anyhow::Error::from)),
        None => None,
    };
    let order = match first {
        Some(Ok(order)) => order,
        Some(Err(error)) if is(&error, "rateLimited") => return Err(error.context("no order")),
        // it knows no replacing, has replaced that already, or has issued something else
        _ => account.new_order(&wanted).await.context("no order")?,
    };
    let key = KeyPair::generate()?;
    let under_way = UnderWay {
        directory: acme.directory.clone(),
        names: acme.names.clone(),
        url: order.url().to_owned(),
        key: key.serialize_pem(),
    };
    under_way.write(acme)?;
    Ok((order, key))
}

/// Answers what the authority asks, until what is returned is dropped.
async fn prove(acme: &Acme, order: &mut Order, challenges: &Arc<Challenges>) -> anyhow::Result<(Vec<Open>, Lent)> {
    let kind = if acme.is_http { ChallengeType::Http01 } else { ChallengeType::TlsAlpn01 };
    let mut proofs = Vec::new();
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization?;
        match authorization.status {
            AuthorizationStatus::Valid => continue,
            AuthorizationStatus::Pending => {}
            status => bail!("an authorization is {status:?}"),
        }
        let challenge = authorization.challenge(kind.clone()).context("the authority offers another challenge")?;
        let answer = challenge.key_authorization();
        proofs.push(match kind {
            ChallengeType::Http01 => {
                Proof::Token { token: challenge.token.clone(), answer: answer.as_str().to_owned() }
            }
            _ => Proof::Name { name: challenge.identifier().to_string(), digest: answer.digest().as_ref().to_vec() },
        });
    }
    let open = proofs.iter().map(|proof| proof.open(challenges)).collect::<anyhow::Result<_>>()?;
    let answered = (open, Lent::write(acme, &proofs)?);
    sleep(SEEN_BY_ALL).await;
    // the same ones, which the library has kept
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization?;
        if authorization.status == AuthorizationStatus::Pending
            && let Some(mut challenge) = authorization.challenge(kind.clone())
            // of an order that is gone on with, the authority may be looking already
            && challenge.status == ChallengeStatus::Pending
        {
            challenge.set_ready().await?;
        }
    }
    Ok(answered)
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

#[cfg(test)]
mod testing {
    //! What tests of the rooms below need.

    use super::*;
    use std::path::Path;

    pub(super) fn acme(cache: &Path) -> Acme {
        Acme {
            directory: "https://acme.invalid/".to_owned(),
            directory_ca: None,
            contact: Vec::new(),
            names: vec!["a.example".to_owned()],
            is_http: false,
            cache: cache.to_owned(),
        }
    }

    /// A chain and a key, valid for 90 days from this month of 2026 on.
    pub(super) fn issue(month: u8) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["a.example".to_owned()]).unwrap();
        (params.not_before, params.not_after) =
            (rcgen::date_time_ymd(2026, month, 1), rcgen::date_time_ymd(2026, month + 3, 1));
        (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
    }
}

#[cfg(test)]
mod tests {
    use super::testing::{acme, issue};
    use super::*;
    use rand::SeedableRng as _;

    #[test]
    fn a_certificate_is_due_where_it_is_over_for_other_names_or_of_another_directory() {
        let dir = tempfile::tempdir().unwrap();
        let mut acme = acme(dir.path());
        let schedule = Schedule::new(&mut Rng::seed_from_u64(1));
        assert!(is_due(&acme, &schedule), "there is none");
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(acme.names.clone()).unwrap();
        params.not_after = rcgen::date_time_ymd(4096, 1, 1);
        let chain = params.self_signed(&key).unwrap().pem();
        cache::keep_certificate(&acme, &chain, &key.serialize_pem()).unwrap();
        assert!(!is_due(&acme, &schedule));
        acme.names.push("b.example".to_owned());
        assert!(is_due(&acme, &schedule), "for other names");
        acme.names.pop();
        cache::keep_attempts(&acme, &schedule::Attempts::of(&acme.directory)).unwrap();
        assert!(!is_due(&acme, &schedule));
        "https://another.invalid/".clone_into(&mut acme.directory);
        assert!(is_due(&acme, &schedule), "of another directory");
        "https://acme.invalid/".clone_into(&mut acme.directory);
        let (chain, key) = issue(1);
        cache::keep_certificate(&acme, &chain, &key).unwrap();
        assert!(is_due(&acme, &schedule), "it is over");
    }
}
