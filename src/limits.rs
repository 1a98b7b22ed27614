//! Every static bound, in one place, each with its reason; relations between them are checked when the crate is compiled.
//!
//! What an operator may tune stands in [`crate::config`] and has its default and range there; what stands here either bounds those
//! ranges or is not worth a knob.

use std::time::Duration;

/// Workers: more cores than any edge host has; bounds leases and the per-worker tables.
pub const WORKERS_MAX: usize = 512;
/// Listeners of one gateway.
pub const LISTENERS_MAX: usize = 256;
/// Routes of one gateway: ten times what the performance targets are measured with.
pub const ROUTES_MAX: usize = 100_000;
/// Upstream clusters of one gateway.
pub const CLUSTERS_MAX: usize = 10_000;
/// Endpoints of one cluster. Maglev's table (65,537 slots) wants at most a hundredth as many for an even spread.
pub const ENDPOINTS_MAX: usize = 4_096;
/// Tiers (`priority`) of one cluster; Envoy allows 128, nobody runs more than a handful.
pub const TIERS_MAX: usize = 16;
/// Limits that routes and listeners share (`[limit.NAME]`).
pub const LIMITS_MAX: usize = 10_000;
/// Keys that one limit may combine.
pub const LIMIT_KEYS_MAX: usize = 4;
/// Limits (`limit = […]`) of one route.
pub const ROUTE_LIMITS_MAX: usize = 8;
/// Lines of the table of quotas, four keys each: a quarter of a million clients, of whom a snapshot is written within milliseconds.
pub const QUOTA_TABLE_LINES: usize = 1 << 16;
/// Requests that limits of requests at once can count apart; beyond it some are not counted. As many as a listener may have connections.
pub const LIMITED_AT_ONCE_MAX: usize = 1 << 16;
/// Keys of limits that several hosts share, which are looked through now and then; what finds no room waits for it. A cache line each.
pub const SHARED_KEYS_MAX: usize = 1 << 16;
/// Tokens that one request may cost (`limit = [{ cost = … }]`), and what a response may say of it (`cost_header`): enough for the words of the
/// largest language models' contexts, and far from where sums of nanoseconds end.
pub const COST_MAX: u64 = 1_000_000;
/// An endpoint's weight; nginx and Envoy allow more, but ring points grow with it.
pub const WEIGHT_MAX: u32 = 65_535;
/// Conditions (headers, query parameters) of one route.
pub const ROUTE_CONDITIONS_MAX: usize = 16;
/// Size of one compiled path regex, in bytes: a pattern that needs more is refused at load.
pub const REGEX_BYTES_MAX: usize = 1 << 20;
/// Size of all compiled path regexes of one host together, in bytes; a thousand ordinary ones need a twentieth of it.
pub const REGEX_SET_BYTES_MAX: usize = 64 << 20;
/// States that one worker's regex searches may keep, in bytes over all hosts; when it is full they are built anew …
pub const REGEX_CACHE_BYTES_MAX: usize = 32 << 20;
/// … but no host gets less than this: below it building costs more than it saves.
pub const REGEX_CACHE_BYTES_MIN: usize = 256 << 10;
/// Pairs of a host and a path over all routes: four for each of [`ROUTES_MAX`], some 100 bytes each.
pub const MATCHES_MAX: usize = 4 * ROUTES_MAX;
/// Placeholders of one path: each may double the places that a search looks at.
pub const PLACEHOLDERS_MAX: usize = 8;
/// Different methods that the routes of one gateway may name; a set of them is one word.
pub const METHODS_MAX: usize = 64;

/// The configuration file: every route of [`ROUTES_MAX`] in some 600 bytes.
pub const CONFIG_BYTES_MAX: u64 = 64 << 20;
/// Files that a configuration includes; one a team, or one a service.
pub const INCLUDED_FILES_MAX: usize = 4_096;
/// A secret that stands in a file of its own: the longest header that services take in practice.
pub const SECRET_BYTES_MAX: u64 = 16 << 10;
/// A file with a certificate and those above it, or with a key: far more than the longest chains in use.
pub const CERTIFICATE_BYTES_MAX: u64 = 256 << 10;
/// Certificates in a folder: 3.5 KB of memory each, and a quarter of a millisecond at a start, where they are RSA.
pub const CERTIFICATES_MAX: usize = 20_000;
/// Handshakes with clients under way on a worker, some 20 KB each, and what a flight of theirs has at most (64 KB); more wait.
pub const HANDSHAKES_MAX: usize = 4_096;
/// Those of one client: an eighth, so that one address cannot have all. At 100 ms each it is 5,000 a second; more wait.
pub const HANDSHAKES_PER_CLIENT_MAX: usize = 512;
/// A file of endpoints: as many as an upstream may have, in some two hundred bytes each.
pub const ENDPOINTS_FILE_BYTES_MAX: u64 = 1 << 20;
/// The longest pause between two lookups of a name that bring nothing: who mends a server of names does not wait longer to see it.
pub const NAME_RETRY_MAX: Duration = Duration::from_secs(30);
/// By how much later than its records say a name is asked for at most: half of the second within which endpoints follow their name.
pub const NAME_JITTER_MAX: Duration = Duration::from_millis(500);
/// Lookups under way at once: servers of names take that from one client, and a thousand names are learned within a few round trips.
pub const LOOKUPS_MAX: usize = 128;
/// Names that no endpoint has any more whose lookups are still counted on.
pub const NAMES_KEPT_MAX: usize = 1_024;
/// Hosts of a service (SRV) that are asked for; RFC 2782 has a few in mind.
pub const SERVICE_HOSTS_MAX: usize = 1_024;
/// Of those at once: a hundred hosts are learned within a few round trips, and one service takes no more than its part of a server's time.
pub const SERVICE_HOSTS_AT_ONCE: usize = 16;
/// A name of a listener, route or upstream: it is repeated in every line of metrics and logs.
pub const NAME_BYTES_MAX: usize = 128;
/// A path, pattern or template of the file; the same as the paths that the access log keeps whole.
pub const PATH_BYTES_MAX: usize = 2_048;
/// The body of a direct response (`respond`), which each worker holds; larger ones belong on a server.
pub const RESPOND_BODY_BYTES_MAX: usize = 64 << 10;
/// Entries of a list or table of the file that has no limit of its own (methods, header rules, networks, redacted names).
pub const ENTRIES_MAX: usize = 256;

/// Consumers of one gateway, those of `consumers_file` included: some 200 bytes each.
pub const CONSUMERS_MAX: usize = 200_000;
/// Consumers in the configuration itself; more stand in `consumers_file`.
pub const CONSUMERS_WRITTEN_MAX: usize = 10_000;
/// `consumers_file`: every consumer of [`CONSUMERS_MAX`] in some 320 bytes.
pub const CONSUMERS_FILE_BYTES_MAX: u64 = 64 << 20;
/// Groups of one consumer.
pub const CONSUMER_GROUPS_MAX: usize = 64;
/// API keys of one consumer: one for each of its hosts, and those that come next.
pub const CONSUMER_KEYS_MAX: usize = 64;
/// Signatures of one request that are looked at; proxies on the way add theirs, and each is a verification.
pub const SIGNATURE_LABELS_MAX: usize = 4;
/// Components that one signature covers, and its parameters: what is signed has more lines than a head should have headers that matter.
pub const SIGNATURE_COMPONENTS_MAX: usize = 32;
/// A line of `Signature-Input`, `Signature` or `Content-Digest`: 32 components of long names, and the signature of an RSA key of 8192 bits.
pub const SIGNATURE_FIELD_BYTES_MAX: usize = 4 << 10;
/// A signature in base64: of an RSA key of 8192 bits 1368 bytes.
pub const SIGNATURE_BYTES_MAX: usize = 1400;
/// `keyid` and `tag`; URLs are used, too.
pub const SIGNATURE_KEY_ID_BYTES_MAX: usize = 256;
/// `nonce`: 24 to 44 bytes are usual.
pub const SIGNATURE_NONCE_BYTES_MAX: usize = 256;
/// Nonces that are remembered, over all workers: 16 MiB when all have been used. Half of it is 3,000 signed requests per second at the default age.
pub const SIGNATURE_NONCES_MAX: usize = 1 << 21;
/// Marks of the certificates of one consumer: as many, for the same reason.
pub const CONSUMER_MARKS_MAX: usize = 64;
/// An API key as a request shows it; a longer one is nobody's.
pub const API_KEY_BYTES_MAX: usize = 512;
/// The hash of a password: the longest of SHA-crypt has 123 bytes, one of argon2id with a long salt twice as many.
pub const PASSWORD_HASH_BYTES_MAX: usize = 512;
/// Memory of argon2id in KiB: 64 MiB, what PHP and Python's argon2-cffi take, and above what OWASP asks for.
pub const ARGON2_KIB_MAX: u32 = 65_536;
/// Passes of argon2id over that.
pub const ARGON2_PASSES_MAX: u32 = 8;
/// Its lanes, which are worked on one after the other here.
pub const ARGON2_LANES_MAX: u32 = 16;
/// The cost of bcrypt: a second or so; htpasswd -B takes 5, most libraries 10 or 12.
pub const BCRYPT_COST_MAX: u32 = 14;
/// Rounds of SHA-crypt: half a second or so; crypt(3) takes 5,000 unless told otherwise.
pub const SHA_CRYPT_ROUNDS_MAX: u32 = 1_000_000;
/// `htpasswd`: every user of [`CONSUMERS_MAX`] in some 160 bytes.
pub const HTPASSWD_BYTES_MAX: u64 = 32 << 20;
/// A name and a password in base64 as a request shows them: 384 bytes, which are more than people type.
pub const CREDENTIALS_BYTES_MAX: usize = 512;
/// Threads that verify passwords, at most: with argon2id each needs [`ARGON2_KIB_MAX`].
pub const PASSWORD_THREADS_MAX: usize = 4;
/// Passwords that wait for one of them: a second or two of work at the usual costs. Beyond it 503.
pub const PASSWORDS_QUEUED_MAX: usize = 64;
/// Of these, passwords of one client: whoever comes with more at once has guessed, or may come again. An eighth leaves room for others.
pub const PASSWORDS_SHARE_MAX: usize = 8;
/// How long a request waits for its password to be verified; then 503.
pub const PASSWORD_PATIENCE: Duration = Duration::from_secs(10);
/// How long a worker knows that a password was right, before it is verified again.
pub const PASSWORD_KNOWN: Duration = Duration::from_secs(300);
/// Passwords that a worker knows to be right: some 100 bytes each.
pub const PASSWORDS_KNOWN_MAX: usize = 8_192;
/// The body of a refusal by who decides (`auth.forward`) that a client gets; of a longer one it gets none.
pub const DECISION_BODY_BYTES_MAX: usize = 64 << 10;
/// Headers of a decision that is remembered, as many of which as of tokens are; one with more is asked for each time.
pub const DECISION_KEPT_BYTES_MAX: usize = 2 << 10;
/// Ways to be recognised of one gateway (`[auth.NAME]`), and of one route.
pub const AUTH_MAX: usize = 64;
/// A token (JWT) that is read: identity providers warn at half of that, and a head is 16 KiB.
pub const TOKEN_BYTES_MAX: usize = 8 << 10;
/// Keys of one way to be recognised by tokens; identity providers have two or three, so that they can be exchanged.
pub const TOKEN_KEYS_MAX: usize = 64;
/// Keys that a token without `kid` is tried with: each is a verification.
pub const TOKEN_KEYS_TRIED_MAX: usize = 4;
/// A file with the keys of tokens.
pub const TOKEN_KEYS_FILE_BYTES_MAX: u64 = 256 << 10;
/// Tokens that a worker remembers as believed, until they are over: some 2 KB each.
pub const TOKENS_KEPT_MAX: usize = 8_192;
/// Rules of one `allow` or `deny`, which are looked at one after the other.
pub const RULES_MAX: usize = 64;
/// Networks in a file: twice as many as the largest lists in common use.
pub const NETWORKS_MAX: usize = 200_000;
/// Such a file, with a remark in each line.
pub const NETWORKS_FILE_BYTES_MAX: u64 = 16 << 20;
/// Consumers that metrics tell apart; the rest is counted together, because each is another time series.
pub const CONSUMER_LABELS_MAX: usize = 1_000;

/// Smallest `max_head`: a request line and a few headers. Also the size of the first read.
pub const HEAD_BYTES_MIN: usize = 1 << 10;
/// Largest `max_head`: HAProxy's and Envoy's practical ceilings are 64 KiB to 96 KiB; offsets fit in a `u32` with room.
pub const HEAD_BYTES_MAX: usize = 256 << 10;
/// Largest `max_headers`: the parser's table of headers is on the stack while a head is parsed.
pub const HEADERS_MAX: usize = 256;
/// Copies of requests (`mirror`) that a worker has under way: each holds up to [`REPLAY_BYTES_MAX`] and a head.
pub const MIRRORS_MAX: usize = 128;
/// What is read of the answer to a copy, so that its connection can be used again; beyond it that is closed.
pub const MIRROR_ANSWER_BYTES_MAX: usize = 1 << 20;
/// Responses that a worker compresses at once, with up to 1.5 MB each; beyond it they go as they come.
pub const COMPRESSIONS_MAX: usize = 64;
/// The largest body that is awaited before an endpoint is taken (`request_buffering`); larger ones belong into files, which this has not.
pub const REQUEST_BUFFER_BYTES_MAX: usize = 16 << 20;
/// Of all requests of a worker together; beyond it bodies go on as they come.
pub const REQUEST_BUFFERS_BYTES_MAX: usize = 64 << 20;
/// What a route's `bandwidth` may let go at once; more than that is no limit.
pub const BANDWIDTH_BURST_BYTES_MAX: u64 = 1 << 30;
/// How often a request may pass gateways of this name before it counts as going round: more of them in a row than anybody builds.
pub const ROUNDS_MAX: usize = 8;
/// A method's name. The longest registered one (UPDATEREDIRECTREF) has 17 bytes.
pub const METHOD_BYTES_MAX: usize = 32;
/// A host's name without its port: DNS allows 253 bytes.
pub const HOST_BYTES_MAX: usize = 255;
/// Names that one head's `Connection` may nominate: each is compared with every header of the head.
pub const CONNECTION_OPTIONS_MAX: usize = 32;
/// An `X-Request-Id` that is kept; a longer one is replaced, as log systems cut it anyway.
pub const REQUEST_ID_BYTES_MAX: usize = 128;
/// A PROXY header of version 2 with its TLVs; nginx takes as much. Its length field would allow 64 KiB.
pub const PROXY_HEADER_BYTES_MAX: usize = 4 << 10;
/// Empty lines before a request line that are skipped (RFC 9112 §2.2 asks for at least one).
pub const EMPTY_LINES_MAX: usize = 2;
/// An upstream's response head. Envoy's default is 60 KiB, nginx's one page; ours is what the largest read block holds.
pub const RESPONSE_HEAD_BYTES_MAX: usize = 64 << 10;
/// Headers of an upstream's response.
pub const RESPONSE_HEADERS_MAX: usize = 200;
/// A chunk-size line with its extensions (RFC 9112 §7.1.1 asks recipients to limit them).
pub const CHUNK_LINE_BYTES_MAX: usize = 256;
/// Bytes of chunk extensions that a body may carry beyond its payload: tiny chunks with long extensions are an amplification
/// (the bound that Go's net/http chose after CVE-2023-39326).
pub const CHUNK_EXTENSION_BYTES_MAX: u64 = 16 << 10;
/// Trailer section of a chunked body, in bytes.
pub const TRAILER_BYTES_MAX: usize = 8 << 10;
/// Rest of a request body that is read and thrown away after an early response, so that the connection can be kept; with more
/// to come closing is cheaper than reading.
pub const DISCARD_BYTES_MAX: u64 = 64 << 10;
/// How long the gateway reads and throws away before it closes after all: a client that sends this little this slowly had better
/// connect again.
pub const DISCARD_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a client that waits for `100 Continue` waits for the upstream's; then the gateway says it. The second that curl waits
/// (RFC 9110 §10.1.1: nobody may wait indefinitely, and many services never answer an expectation).
pub const CONTINUE_TIMEOUT: Duration = Duration::from_secs(1);
/// An `Upgrade` that is forwarded; "websocket" has nine bytes.
pub const UPGRADE_BYTES_MAX: usize = 64;
/// How long before `drain_timeout` passes tunnels are ended and requests cut, at most (a tenth of it, if that is less), so that clients
/// are told and the access log has them. It is also the time that this may take.
pub const CUT_BEFORE_DRAIN_ENDS: Duration = Duration::from_millis(500);
/// How long idle connections stay when another process has taken over, at most (half of `drain_timeout`, if that is less): a client that sends
/// a request meanwhile is answered, and told with that.
pub const HANDOVER_IDLE: Duration = Duration::from_secs(5);
/// Interim (1xx) responses that one attempt may send before its final one.
pub const INTERIM_RESPONSES_MAX: usize = 8;

/// Body bytes kept so that an attempt can be repeated; the same as Pingora and Linkerd keep.
pub const REPLAY_BYTES_MAX: usize = 64 << 10;
/// How long the head of a response is held back for a small body that has not all come, which until then can be had from another endpoint.
/// What is written at once, even in pieces, is there within a round trip; a service that trickles loses no more than this, once.
pub const ANSWER_HELD_MAX: Duration = Duration::from_millis(100);
/// Attempts of one request, the first one included (`retry.attempts` + 1).
pub const ATTEMPTS_MAX: usize = 16;
/// Endpoints that one request may go on to because it could not be sent to the one before. They are no retries, and each is another
/// endpoint: what bounds them is the number of endpoints, T_max, and this.
pub const FAILOVERS_MAX: usize = 16;
/// Endpoints that one request meets, repeats included.
pub const VISITS_MAX: usize = ATTEMPTS_MAX + FAILOVERS_MAX;
/// Backoff before the same endpoint is tried again: full jitter below a bound that doubles from here to `retry.backoff_max`. Envoy's
/// default.
pub const BACKOFF_MIN: Duration = Duration::from_millis(25);
/// The shortest per-try timeout that is worth an attempt: below it, a loopback service would fail too.
pub const TRY_MIN: Duration = Duration::from_millis(1);
/// Time constant of an endpoint's availability and of its smoothed round trip: Finagle's and Linkerd's ten seconds.
pub const AVAILABILITY_DECAY: Duration = Duration::from_secs(10);
/// A failed attempt counts as a round trip of at least this in `peak_ewma`; Linkerd's penalty.
pub const RTT_PENALTY: Duration = Duration::from_secs(5);
/// How long an endpoint is shunned at least, however well it answers: who fails now and then must not come and go with every request.
pub const SHUNNED_MIN: Duration = Duration::from_secs(1);
/// How long a failure counts as a request in flight when two endpoints are compared.
pub const DOUBT: Duration = Duration::from_secs(1);
/// The round trip of an endpoint while no endpoint of its cluster has been measured; Envoy's default.
pub const RTT_DEFAULT: Duration = Duration::from_millis(10);
/// How long nobody asks an endpoint that was put aside and has failed hard once more: what a full outage costs, and how soon its end is
/// seen.
pub const DEAD: Duration = Duration::from_millis(100);
/// For so long after that it is still taken to be dead until it is reached, and asked by one request at a time.
pub const DEAD_KNOWN: Duration = Duration::from_secs(1);
/// A failure that took longer tells nothing about how long the next one takes: it was a response that broke, or a route that waits for ever.
pub const FAILURE_TIME_MAX: Duration = Duration::from_secs(10);
/// Successes in a row that bring an endpoint back before the doubled time of its ejection is over. One that fails half of its requests
/// has them once in 256 times.
pub const PROOFS: u32 = 8;
/// `per_try_timeout = "auto"`: at least this …
pub const TRY_AUTO_MIN: Duration = Duration::from_millis(250);
/// … and this many times the p99 of the route.
pub const TRY_AUTO_FACTOR: u32 = 3;
/// A tier carries this many percent of what its available endpoints are of all: Envoy's overprovisioning factor 1.4.
pub const TIER_OVERPROVISION_PERCENT: u64 = 140;
/// Share of its load with which a readmitted endpoint begins, in percent; Envoy's slow start.
pub const RAMP_MIN_PERCENT: u64 = 10;
/// How long an endpoint whose ejection is over waits for a request that could be retried, before any request probes it.
pub const PROBE_PATIENCE: Duration = Duration::from_secs(1);
/// Longest time for which one request may hold the slot of a probe.
pub const PROBE_LEASE_MAX: Duration = Duration::from_secs(60);
/// Changes of endpoints (ejected, readmitted, …) that a cluster keeps for its worker; beyond it the oldest are dropped.
pub const CHANGES_MAX: usize = 256;
/// Points of one cluster's hash ring, over all endpoints: 2 MiB, and 64 points each for the largest cluster.
pub const RING_POINTS_MAX: usize = 1 << 18;
/// Points of an endpoint of average weight: libketama's 160 give an imbalance of some 8 %.
pub const RING_POINTS_PER_ENDPOINT: usize = 160;
/// Slots of a Maglev table: the paper's prime, a hundred slots each for 655 endpoints.
pub const MAGLEV_SLOTS: usize = 65_537;
/// Every timeout of the file: a day; longer is a mistake.
pub const TIMEOUT_MAX: Duration = Duration::from_secs(86_400);
/// The longest that a client may go on with a call of gRPC before its response begins; what ends one sooner is silence.
pub const STREAM_MAX: Duration = Duration::from_secs(30 * 86_400);

/// Buckets of a rate limiter's key table, each one cache line of four keys: one million clients at 16 bytes each.
pub const LIMIT_TABLE_BUCKETS: usize = 1 << 18;
/// The work of a lease: tokens a core takes from the shared reservoir at once are worth at most this long at the limit's rate.
pub const LEASE: Duration = Duration::from_millis(5);
/// Clients that the usage tables follow per worker; the smallest are evicted first (space saving, Metwally 2005).
pub const USAGE_CLIENTS: usize = 4_096;
/// Pairs that one answer of `/usage` lists.
pub const USAGE_TOP_MAX: usize = 1_000;
/// Distinct (route, method, status) counters per worker; what does not fit is counted under `other`.
pub const REQUEST_COUNTERS_MAX: usize = 1 << 16;
/// The same for one route: ten methods with a dozen statuses each, more than any service has.
pub const ROUTE_REQUEST_COUNTERS_MAX: usize = 128;
/// Methods of gRPC with counters of their own, for one route on one worker; each costs some 200 bytes.
pub const ROUTE_METHODS_MAX: usize = 64;
/// The longest `SERVICE/METHOD` that has some.
pub const METHOD_NAME_BYTES_MAX: usize = 200;

/// Read blocks: the small one serves a head or a small body, the large one bulk transfer.
pub const BLOCK_SMALL: usize = 8 << 10;
/// See [`BLOCK_SMALL`]; holds a body that may be replayed, with its head.
pub const BLOCK_LARGE: usize = 80 << 10;
/// The block of a body that comes and goes as fast as the gateway can pass it on: a quarter less CPU a byte than with [`BLOCK_LARGE`].
pub const BLOCK_BULK: usize = 256 << 10;
/// Blocks of that size that a worker has, in use or in stock: 16 MiB. Bodies beyond them go through large ones.
pub const BULK_BLOCKS_MAX: usize = 64;
/// Blocks that a worker keeps for reuse, in bytes over all sizes.
pub const BLOCKS_KEPT_BYTES: usize = 16 << 20;
/// Connections of one worker that may wait for a request, or the rest of its head, with a receive (and so a buffer) armed: 13 MiB; the
/// rest wait by poll and hold nothing but what has arrived.
pub const ARMED_RECEIVES_MAX: usize = 1_024;
/// Blocks of one worker that its ring may fill by itself, at most; a power of two. It has as many as turns take, twice over: rarely more
/// than fifty.
pub const RECEIVE_BUFFERS: u16 = 128;
/// Blocks that a connection may be ahead of whoever reads from it, before it is received from only when asked.
pub const PIECES_AHEAD: usize = 4;
/// Blocks that wait to be read over all connections of a worker: 8 MiB. Beyond it, received is only into blocks of those who ask.
pub const PIECES_AHEAD_MAX: usize = 1_024;
/// Blocks in which bodies wait that clients of HTTP/2 send and nobody has taken, over all connections of a worker. Beyond it nothing is received from
/// connections of which more than one large block waits, and no window grows.
pub const STREAMS_AHEAD_BYTES_MAX: usize = 32 << 20;
/// Connections taken from one listener in one turn before others get theirs.
pub const ACCEPT_BATCH: usize = 64;

/// Bytes of access log that wait for the writer, per worker; beyond it lines are dropped and counted.
pub const LOG_RING_BYTES: usize = 1 << 20;
/// Formatted lines that the log's thread holds while its output does not take them.
pub const LOG_PENDING_BYTES: usize = 1 << 20;
/// Longest text (path, user agent, …) kept of one field in the access log.
pub const LOG_FIELD_BYTES_MAX: usize = 2_048;
/// Fields that the file may choose for the access log: as many as a line says anyway, or so.
pub const LOG_CHOSEN_MAX: usize = 32;
/// Bytes kept of one of those, and of all of them.
pub const LOG_CHOSEN_ONE_BYTES_MAX: usize = 1_024;
/// The same of all of them: what does not fit any more is not there.
pub const LOG_CHOSEN_BYTES_MAX: usize = 8_192;
/// Lives of one worker that count at once: the one that works, and those that were replaced and finish what they have. More than one of
/// these is a machine that stands still again and again.
pub const WORKER_LIVES_MAX: usize = 4;
/// Lines of the gateway's own log that wait for standard error: those of a bad minute.
pub const OWN_LOG_LINES_MAX: usize = 1_024;
/// Bytes of those lines.
pub const OWN_LOG_BYTES_MAX: u64 = 1 << 20;
/// Connections of the admin API; one more takes the place of whoever has not been written to for longest. Operators and a few scrapers,
/// no more.
pub const ADMIN_CONNECTIONS_MAX: usize = 64;
/// What may be sent to the admin API: a weight and a priority, with all the spaces that somebody may write.
pub const ADMIN_BODY_BYTES_MAX: usize = 4 << 10;
/// A connection of the admin API that was not written to for this long is closed: idle, or sending its request too slowly, or not
/// reading.
pub const ADMIN_IDLE: Duration = Duration::from_secs(30);
/// Active health checks under way at once, over all clusters: bounds sockets, and spares the network at start. Half of these places
/// are divided among the clusters and kept for them, so that hanging endpoints of one do not hold up another's checks.
pub const PROBES_MAX: usize = 256;
/// Response head of a health check, and each interim one before it.
pub const PROBE_HEAD_BYTES_MAX: usize = 16 << 10;
/// Guards of a configuration: each may be a regex that is looked for in every request's path.
pub const GUARDS_MAX: usize = 1_000;
/// Bytes of a body that a health check looks at; all checks together hold at most [`PROBES_MAX`] times as much. A page that says how a
/// service feels is a thousandth of it.
pub const PROBE_BODY_BYTES_MAX: usize = 64 << 10;
/// What is fetched from a URL (the keys of tokens): identity providers show a few KiB, and 64 keys with their certificates fit.
pub const FETCHED_BYTES_MAX: usize = 1 << 20;
/// Messages that wait for a worker.
pub const MAILBOX_MAX: usize = 1_024;
/// A worker that has not turned its loop for this long counts as stalled.
pub const STALL: Duration = Duration::from_secs(5);

const _: () = assert!(PASSWORDS_QUEUED_MAX + PASSWORD_THREADS_MAX < MAILBOX_MAX, "a verdict always finds room");
const _: () = assert!(BLOCK_SMALL >= HEAD_BYTES_MIN && BLOCK_SMALL > PROXY_HEADER_BYTES_MAX);
const _: () = assert!(BLOCK_LARGE >= RESPONSE_HEAD_BYTES_MAX, "a response head fits in one block");
const _: () = assert!(BLOCK_LARGE < BLOCK_BULK && BULK_BLOCKS_MAX * BLOCK_BULK <= BLOCKS_KEPT_BYTES);
const _: () = assert!(REPLAY_BYTES_MAX >= BLOCK_SMALL && REPLAY_BYTES_MAX < BLOCK_LARGE);
const _: () = assert!(CHUNK_LINE_BYTES_MAX < BLOCK_SMALL && TRAILER_BYTES_MAX <= BLOCK_SMALL);
const _: () = assert!(LIMIT_TABLE_BUCKETS.is_power_of_two() && LOG_RING_BYTES.is_power_of_two());
const _: () = assert!(RECEIVE_BUFFERS.is_power_of_two() && (RECEIVE_BUFFERS as usize) < PIECES_AHEAD_MAX);
const _: () = assert!(WORKERS_MAX <= u16::MAX as usize && ROUTES_MAX <= u32::MAX as usize);
const _: () = assert!(METHODS_MAX <= u64::BITS as usize);
const _: () = assert!(REGEX_BYTES_MAX <= REGEX_SET_BYTES_MAX && REGEX_CACHE_BYTES_MIN <= REGEX_CACHE_BYTES_MAX);
const _: () = assert!(ATTEMPTS_MAX <= ENDPOINTS_MAX);
const _: () =
    assert!(RING_POINTS_MAX >= ENDPOINTS_MAX && MAGLEV_SLOTS > ENDPOINTS_MAX && ENDPOINTS_MAX <= u16::MAX as usize);
const _: () = assert!(VISITS_MAX <= u8::MAX as usize);
const _: () = assert!(DEAD.as_nanos() < DEAD_KNOWN.as_nanos() && DEAD_KNOWN.as_nanos() < FAILURE_TIME_MAX.as_nanos());
const _: () = assert!(LOG_FIELD_BYTES_MAX * 12 + LOG_CHOSEN_BYTES_MAX < u16::MAX as usize);
const _: () = assert!(LOG_CHOSEN_MAX <= u8::MAX as usize && LOG_CHOSEN_ONE_BYTES_MAX <= LOG_CHOSEN_BYTES_MAX);
