//! The keys of `[consumer.NAME]`, `[auth.NAME]`, `allow` and `deny`, as the file writes them.

use super::addresses::Network;
use super::fetched::JwksUrl;
use super::file::Timeout;
use super::forward::OnFailure;
use super::identity::ClaimTest;
use super::marks::Marks;
use super::names::{EditableHeader, FilePath, Header, MethodText, Name};
use super::passwords::PasswordHash;
use super::paths::{Body, ProbePath, QueryText};
use super::problem::{Refusal, Sink};
use super::read::{List, Map, Node, Read, Scalar, Written};
use super::secret::SecretText;
use super::signatures::{SignatureTable, SigningKey};
use super::tables::{scalar_schema, table};
use super::tls_keys::UpstreamTls;
use super::token_keys::Algorithm;
use super::values::{HOUR, Time, text};
use crate::limits::{CONSUMER_GROUPS_MAX, CONSUMER_KEYS_MAX, ENTRIES_MAX, ROUTE_CONDITIONS_MAX, RULES_MAX};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::json;
use std::borrow::Cow;
use std::sync::Arc;
use toml::de::DeValue;

table! {
    /// Somebody who calls, by the name that logs, metrics and limits have.
    Consumer {
        /// Groups that the consumer is in, at most 64.
        default groups: List<Name, 0, CONSUMER_GROUPS_MAX> = [];
        /// API keys of the consumer, at most 64, so that an old one and a new one can be valid at once.
        default keys: List<KeyDigests, 0, CONSUMER_KEYS_MAX> = [];
        /// Client certificates of the consumer, where auth.X.mtls is taken: by what they are its, one way or a list of at most 64.
        optional mtls: Marks;
        /// The password that the consumer logs in with, where auth.X.basic is taken.
        optional basic: Credentials;
        /// Keys that the consumer signs requests with, where auth.X.signature is taken, at most 64.
        default signature: List<SigningKey, 0, CONSUMER_KEYS_MAX> = [];
    }
}

table! {
    /// A name and a password.
    Credentials {
        /// The name that is typed; without it the consumer's. It has no colon (RFC 7617).
        optional user: Name;
        /// The password's hash: argon2id, bcrypt ($2a$, $2b$, $2y$) or SHA-crypt ($5$, $6$), as htpasswd -nB or mkpasswd print it.
        required password: PasswordText;
    }
}

table! {
    /// An API key, which the file need not say.
    KeyDigests {
        /// SHA-256 of the key in hexadecimal: printf %s KEY | sha256sum. Keys have to be long and random, as openssl rand -hex 32 makes them.
        required sha256: Digest;
    }
}

table! {
    /// A way in which a request says who sends it. Routes and listeners name those that they take.
    Auth {
        /// An API key stands in this header …
        optional header: Header;
        /// … behind this word and a space, as in "Authorization: Bearer KEY"; bare where it is not given.
        optional scheme: Token;
        /// An API key stands in this query parameter. Prefer a header: URLs are kept in many places. It is hidden in the access log.
        optional query: QueryText;
        /// An API key stands in this cookie.
        optional cookie: Token;
        /// Tokens (JWT) are taken instead of keys, and verified with this. They stand behind "Authorization: Bearer" where no place is given.
        optional key: TokenKey;
        /// Or with the keys of a JWK set at this URL, which are fetched every 5 min, and sooner when a token names one that is not there.
        optional jwks: JwksUrl;
        /// true: or with the keys of the issuer, which says itself where they are (OpenID Connect Discovery), at ISSUER/.well-known/openid-configuration.
        default discovery: bool = false;
        /// TLS with whom that URL or the issuer names.
        table tls: UpstreamTls;
        /// Or a name and a password (RFC 7617), behind "Authorization: Basic".
        optional basic: Basic;
        /// Or the certificate of a client, which the listener has believed (tls.client_auth): its consumer has mtls.
        default mtls: bool = false;
        /// Or a signature of the request (RFC 9421), in Signature-Input and Signature: its consumer has signature.
        optional signature: SignatureTable;
        /// Or another service decides, which is asked first.
        optional forward: Forward;
        /// How tokens are signed; others are refused. RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, EdDSA, or HS256, HS384, HS512
        /// for a secret.
        default algorithms: List<AlgorithmWord, 0, 16> = [];
        /// What iss of a token has to be; anything where it is not given.
        optional issuer: QueryText;
        /// What aud of a token has to have one of. Where it is not given, a token that has aud is refused.
        default audience: List<QueryText, 0, 64> = [];
        /// By how much clocks may differ when exp and nbf are looked at, 0s to 1h.
        default leeway: Time<0, HOUR> = "30s";
        /// What typ of a token may be, in any case, if it has one.
        default types: List<QueryText, 1, 16> = ["JWT", "at+jwt"];
        /// The claim that says who it is: the consumer's name.
        default consumer_claim: QueryText = "sub";
        /// true: what the client has shown goes on to the endpoint. false: it ends here.
        default forward_credentials: bool = false;
        /// Headers that tell the endpoint who was recognised: {consumer}, {groups} or {claim.NAME}. No client can set them: they are taken off all requests first.
        default headers: Map<EditableHeader, IdentityText, ENTRIES_MAX> = {};
    }
}

table! {
    /// Who logs in: consumers with basic, and the users of a file.
    Basic {
        /// What browsers show and keep passwords by; without it the name of this table.
        optional realm: Name;
        /// A file as htpasswd writes it: a USER:HASH in each line, and remarks behind #. Its users are consumers, too. It is read with this one.
        optional htpasswd: FilePath;
    }
}

/// Names of headers.
pub(super) type ForwardHeaders = super::read::Written<List<EditableHeader, 0, ENTRIES_MAX>>;

table! {
    /// Which service decides, and what it is told: GET, with X-Forwarded-Method, -Uri, -Host, -Proto and -For of the request, never its body.
    Forward {
        /// The upstream whose endpoints are asked, over its pooled connections, with its balancing, checks and limits.
        required upstream: Name;
        /// Path of the question, with a query or not.
        required path: ProbePath;
        /// Headers of the request that the question has.
        default send: List<EditableHeader, 0, ENTRIES_MAX> = ["authorization", "cookie"];
        /// Headers of an answer of 2xx that go on with the request. No client can set them: they are taken off all requests first.
        default copy: List<EditableHeader, 0, ENTRIES_MAX> = [];
        /// Headers that the client gets of an answer that is not 2xx, with its status, its type and up to 64 KiB of its body.
        default return_headers: List<EditableHeader, 0, ENTRIES_MAX> = ["www-authenticate", "location", "set-cookie"];
        /// The header of an answer of 2xx that is the consumer's name. It is taken off all requests, too.
        optional consumer: EditableHeader;
        /// For the whole answer, over all tries. 1ms to 1d.
        default timeout: Timeout = "500ms";
        /// Without an answer, or with one of 5xx: "deny" answers 503, "allow" lets the request go on.
        default on_failure: OnFailure = "deny";
        /// How long an answer of 2xx holds for the same question: method, URL, client and all headers of send. 0s to 1h; 0s asks each time.
        default cache: Time<0, HOUR> = "0s";
    }
}

table! {
    /// What tokens are verified with: exactly one of these.
    TokenKey {
        /// A file with public keys: PEM, a JWK, or a JWK set. It is read with this one.
        optional file: FilePath;
        /// The same, written here.
        optional inline: Body;
        /// A secret that both sides have, for HS256, HS384 and HS512; written as in request_headers.set.
        optional secret: SecretText;
    }
}

table! {
    /// Conditions, all of which must hold.
    Rule {
        /// The consumer is one of these.
        default consumer: List<Name, 0, ENTRIES_MAX> = [];
        /// The consumer is in one of these groups.
        default group: List<Name, 0, ENTRIES_MAX> = [];
        /// What a token claims: a text that the claim is, or has among its words or entries; a list, one of which it has; { all = […] } or
        /// { exact = "…" }.
        default claim: Map<QueryText, ClaimText, ROUTE_CONDITIONS_MAX> = {};
        /// The client's address is in one of these networks, or in the file's.
        default client_ip: List<Network, 0, ENTRIES_MAX> = [];
        /// A file with a network or an address in each line, at most 200000, and remarks behind #.
        optional client_ip_file: FilePath;
        /// The method is one of these.
        default method: List<MethodText, 0, ENTRIES_MAX> = [];
        /// Count what it would refuse, and refuse nothing.
        default dry_run: bool = false;
    }
}

/// `allow` and `deny`: one rule, or a list of them.
#[derive(Clone, Debug)]
pub struct Rules(pub Vec<Written<Rule>>);

impl Read for Rules {
    fn read(node: Node<'_>, sink: &mut Sink<'_>) -> Option<Self> {
        match node.value {
            DeValue::Table(_) => {
                let value = Rule::read(node, sink)?;
                Some(Self(vec![Written { value, span: node.span(), given: true }]))
            }
            _ => List::<Rule, 1, RULES_MAX>::read(node, sink).map(|list| Self(list.0)),
        }
    }
}

impl JsonSchema for Rules {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Rules".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let one = serde_json::Value::from(generator.subschema_for::<Rule>());
        let list = serde_json::Value::from(generator.subschema_for::<List<Rule, 1, RULES_MAX>>());
        schemars::json_schema!({ "anyOf": [one, list] })
    }
}

/// A token (RFC 9110 §5.6.2) that keeps its case: a cookie's name (RFC 6265 §4.1.1), the scheme of credentials (RFC 9110 §11.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token(pub String);

impl Scalar for Token {
    fn allowed() -> String {
        "a word of letters, digits and !#$%&'*+-.^_`|~".to_owned()
    }

    fn parse(value: &DeValue<'_>) -> Result<Self, Refusal> {
        let name = text(value)?;
        Header::parse(value).map(|_| Self(name.to_owned()))
    }

    fn schema() -> serde_json::Value {
        Header::schema()
    }
}

/// `password`: its hash. What a file says of it is not shown again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PasswordText(pub Arc<PasswordHash>);

impl JsonSchema for PasswordText {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "PasswordText".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        schemars::json_schema!({ "type": "string", "pattern": "^\\$(argon2id|2[aby]|5|6)\\$" })
    }
}

/// SHA-256 of a key. What a file says of it is not shown again.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Digest(pub [u8; 32]);

impl std::fmt::Debug for Digest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Digest")
    }
}

impl Digest {
    /// From 64 hexadecimal digits.
    pub(super) fn try_new(hex: &str) -> Option<Self> {
        let mut bytes = [0; 32];
        let digits = hex.as_bytes();
        if digits.len() != 2 * bytes.len() {
            return None;
        }
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            let digit = |c: u8| char::from(c).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
            *byte = digit(pair[0])? << 4 | digit(pair[1])?;
        }
        Some(Self(bytes))
    }
}

impl Read for Digest {
    fn read(node: Node<'_>, sink: &mut Sink<'_>) -> Option<Self> {
        let digest = node.value.as_str().and_then(Self::try_new);
        if digest.is_none() {
            // whoever has written the key itself here does not want to read it in a log
            let message = "must be 64 hexadecimal digits, as sha256sum prints them".to_owned();
            sink.place(node.path, node.start, message, Some("printf %s KEY | sha256sum".to_owned()));
        }
        digest
    }
}

impl JsonSchema for Digest {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Digest".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        schemars::json_schema!({ "type": "string", "pattern": "^[0-9a-fA-F]{64}$" })
    }
}

/// An entry of `auth.algorithms`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AlgorithmWord(pub Algorithm);

impl Scalar for AlgorithmWord {
    fn allowed() -> String {
        let words: Vec<_> = Algorithm::ALL.iter().map(|algorithm| algorithm.word()).collect();
        format!("one of {}", words.join(", "))
    }

    fn parse(value: &DeValue<'_>) -> Result<Self, Refusal> {
        let written = text(value)?;
        if written.eq_ignore_ascii_case("none") {
            return Err(Refusal::why("a token that nobody has signed says nothing (RFC 8725 §3.2)"));
        }
        let words = Algorithm::ALL.iter().map(|algorithm| algorithm.word());
        let help = super::problem::did_you_mean(written, words);
        Algorithm::from_word(written).map(Self).ok_or(Refusal { why: None, help })
    }

    fn schema() -> serde_json::Value {
        let words: Vec<_> = Algorithm::ALL.iter().map(|algorithm| algorithm.word()).collect();
        json!({ "enum": words })
    }
}

/// What a rule asks of a claim.
#[derive(Clone, Debug)]
pub struct ClaimText(pub ClaimTest);

impl Read for ClaimText {
    fn read(node: Node<'_>, sink: &mut Sink<'_>) -> Option<Self> {
        let list = |value: &DeValue<'_>| -> Option<Vec<String>> {
            let list = value.as_array().filter(|list| (1..=64).contains(&list.len()))?;
            list.iter().map(|entry| entry.get_ref().as_str().map(str::to_owned)).collect()
        };
        let test = match node.value {
            DeValue::String(text) => Some(ClaimTest::Any(vec![text.to_string()])),
            DeValue::Array(_) => list(node.value).map(ClaimTest::Any),
            DeValue::Table(table) if table.len() == 1 => match (table.get("all"), table.get("exact")) {
                (Some(all), _) => list(all.get_ref()).map(ClaimTest::All),
                (_, Some(exact)) => exact.get_ref().as_str().map(|text| ClaimTest::Exact(text.to_owned())),
                _ => None,
            },
            _ => None,
        };
        if test.is_none() {
            let message = "must be a text, a list of at most 64, { all = […] } or { exact = \"…\" }".to_owned();
            sink.value(node.path, node.span(), message, None);
        }
        test.map(Self)
    }
}

impl JsonSchema for ClaimText {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "ClaimText".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let list = json!({ "type": "array", "items": { "type": "string" }, "minItems": 1, "maxItems": 64 });
        let all = json!({ "type": "object", "properties": { "all": list }, "required": ["all"], "additionalProperties": false });
        let exact = json!({ "type": "object", "properties": { "exact": { "type": "string" } }, "required": ["exact"], "additionalProperties": false });
        schemars::json_schema!({ "anyOf": [{ "type": "string" }, list, all, exact] })
    }
}

/// What an endpoint is told of who was recognised.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IdentityText {
    /// `{claim.NAME}`: what the token says there, if that is a text, a number, true or false.
    Claim(String),
    /// `{consumer}`: the name.
    Consumer,
    /// `{groups}`: the names of the groups, with commas between them.
    Groups,
}

impl Scalar for IdentityText {
    fn allowed() -> String {
        "one of {consumer}, {groups}, {claim.NAME}".to_owned()
    }

    fn parse(value: &DeValue<'_>) -> Result<Self, Refusal> {
        match text(value)? {
            "{consumer}" => Ok(Self::Consumer),
            "{groups}" => Ok(Self::Groups),
            other => {
                let claim = other.strip_prefix("{claim.").and_then(|rest| rest.strip_suffix('}'));
                if let Some(name) = claim.filter(|name| !name.is_empty() && !name.contains(['{', '}'])) {
                    return Ok(Self::Claim(name.to_owned()));
                }
                let near = super::problem::nearest(other, ["{consumer}", "{groups}", "{claim.sub}"]);
                let help = near.map(|near| format!("did you mean {near:?}?"));
                Err(Refusal { why: None, help })
            }
        }
    }

    fn schema() -> serde_json::Value {
        json!({ "type": "string", "pattern": "^\\{(consumer|groups|claim\\..+)\\}$" })
    }
}

impl std::fmt::Display for IdentityText {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Consumer => f.write_str("{consumer}"),
            Self::Groups => f.write_str("{groups}"),
            Self::Claim(name) => write!(f, "{{claim.{name}}}"),
        }
    }
}

scalar_schema!(AlgorithmWord, IdentityText, Token);
