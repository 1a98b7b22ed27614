//! The page as a browser shows it: headless Chromium at the width of a desktop and of a phone, light and dark.
//!
//! A machine without `chromium` skips these and says so; with RINGGATE_TESTS_NEED_TOOLS set that is a failure. Pictures stay in cargo's folder
//! for temporary files (`target/tmp/report`), for whoever wants to see them.

mod outcomes;

use outcomes::{NGINX, RINGGATE};
use ringgate_load::report;
use ringgate_load::result::Outcome;
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// Seconds after which a browser is ended: it takes three on a quiet machine.
const BROWSER_SECONDS: &str = "150";
/// How often a browser is started that dies before it has shown the page: on a busy machine one of its processes now and then does.
const BROWSER_STARTS: usize = 4;
const DESKTOP: u32 = 1_280;
const PHONE: u32 = 390;

/// Tells the page around it what a page measures: its widths, what it fetched, labels that overlap or leave their plot.
const MEASURE: &str = r"
const said = [];
addEventListener('error', event => said.push('error: ' + event.message));
addEventListener('securitypolicyviolation', event => said.push('policy: ' + event.blockedURI));
addEventListener('load', () => {
  const shown = [...document.querySelectorAll('figure > svg')].filter(svg => svg.getClientRects().length > 0);
  for (const svg of shown) {
    const paper = svg.getBoundingClientRect();
    const boxes = [...svg.querySelectorAll('text')].map(text => [text.textContent, text.getBoundingClientRect()]);
    boxes.forEach(([name, box], row) => {
      if (box.left < paper.left - 1 || box.right > paper.right + 1) said.push('outside: ' + name);
      for (const [other, that] of boxes.slice(row + 1)) {
        const wide = Math.min(box.right, that.right) - Math.max(box.left, that.left);
        const high = Math.min(box.bottom, that.bottom) - Math.max(box.top, that.top);
        // boxes have room above and below their letters
        if (wide > 1 && high > 4) said.push('overlap: ' + name + ' / ' + other);
      }
    });
  }
  const root = document.documentElement;
  const fetched = performance.getEntriesByType('resource').length;
  parent.postMessage(`NAME width=${innerWidth} scroll=${root.scrollWidth} plots=${shown.length} fetched=${fetched} ${said.join('; ')}`, '*');
});
";

/// A browser's folder for this test, and its pages.
struct Place {
    folder: PathBuf,
}

impl Place {
    /// `None`, having said so, where there is no browser.
    fn with_browser(name: &str) -> Option<Self> {
        let found = Command::new("chromium").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
        if !found.is_ok_and(|status| status.success()) {
            assert!(std::env::var_os("RINGGATE_TESTS_NEED_TOOLS").is_none(), "chromium is not installed");
            eprintln!("skipped: chromium is not installed");
            return None;
        }
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("report").join(name);
        std::fs::create_dir_all(&folder).expect("writable");
        Some(Self { folder })
    }

    fn write(&self, name: &str, page: &str) -> String {
        let file = self.folder.join(name);
        std::fs::write(&file, page).expect("writable");
        format!("file://{}", file.display())
    }

    /// Runs the browser, which ends by itself or is ended. One that dies is started again, with a profile that no dead one has touched: what is
    /// tested is the page, which a browser that lived has to have shown.
    fn browse(&self, arguments: &[&str]) -> Output {
        let mut last = String::new();
        for start in 1..=BROWSER_STARTS {
            let profile = tempfile::tempdir().expect("a temporary folder");
            let output = Command::new("timeout")
                .args(["-k", "5", BROWSER_SECONDS, "chromium", "--headless", "--no-sandbox", "--disable-gpu"])
                .args(["--hide-scrollbars", "--disable-background-networking", "--disable-component-update"])
                // a container's /dev/shm is often too small for it
                .args(["--disable-dev-shm-usage"])
                .args(["--allow-file-access-from-files", "--enable-logging=stderr", "--v=0"])
                .arg(format!("--user-data-dir={}", profile.path().display()))
                .args(arguments)
                .stdin(Stdio::null())
                .output()
                .expect("timeout(1) is there");
            if output.status.success() {
                return output;
            }
            last = format!("{}: {}", output.status, String::from_utf8_lossy(&output.stderr));
            eprintln!("chromium died, start {start} of {BROWSER_STARTS}: {last}");
        }
        panic!("chromium: {last}");
    }

    /// A picture of a page at this width, and what the browser's console said.
    fn picture(&self, name: &str, page: &str, width: u32, more: &[&str]) -> (PathBuf, Vec<String>) {
        let url = self.write(&format!("{name}.html"), page);
        // a window is 500 pixels wide at least: a narrower page is set into it
        let frame = format!(
            "<!DOCTYPE html><body style='margin:0'><iframe src='{url}' style='border:0;width:{width}px;height:2400px'></iframe>"
        );
        let url = self.write(&format!("{name}-{width}.html"), &frame);
        let file = self.folder.join(format!("{name}-{width}.png"));
        let (size, shot) =
            (format!("--window-size={},2400", width.max(500)), format!("--screenshot={}", file.display()));
        let output = self.browse(&[more, &[&size, &shot, &url]].concat());
        (file, console(&output))
    }
}

/// Lines of a page's console.
fn console(output: &Output) -> Vec<String> {
    String::from_utf8_lossy(&output.stderr).lines().filter(|line| line.contains("CONSOLE")).map(str::to_owned).collect()
}

fn pages() -> Vec<(&'static str, Vec<Outcome>)> {
    vec![
        ("capacity", vec![outcomes::capacity(RINGGATE)]),
        ("capacity-of-two", vec![outcomes::capacity(RINGGATE), outcomes::capacity(NGINX)]),
        ("invalid", vec![outcomes::invalid()]),
        ("size", vec![outcomes::size()]),
        ("curve", vec![outcomes::curve()]),
        ("run", vec![outcomes::single()]),
        ("drill", vec![outcomes::drill_of_two()]),
        ("drill-of-two", vec![outcomes::drill(RINGGATE, false), outcomes::drill(NGINX, true)]),
        ("peers", vec![outcomes::peers()]),
    ]
}

/// The page with the measuring script, which its own policy would not let run.
fn measured(page: &str, name: &str) -> String {
    let policy = "default-src &#39;none&#39;; style-src &#39;unsafe-inline&#39;";
    assert!(page.contains(policy), "the page says what it may fetch");
    let script = format!("<script>{}</script></head>", MEASURE.replace("NAME", name));
    let open = "default-src &#39;none&#39;; style-src &#39;unsafe-inline&#39;; script-src &#39;unsafe-inline&#39;";
    page.replacen(policy, open, 1).replacen("</head>", &script, 1)
}

#[test]
fn pages_fit_a_desktop_and_a_phone_and_fetch_nothing() {
    let Some(place) = Place::with_browser("measured") else { return };
    let mut frames = String::new();
    let mut expected = Vec::new();
    for (name, outcomes) in pages() {
        for width in [DESKTOP, PHONE] {
            let page = measured(&report::html(&outcomes), &format!("{name}-{width}"));
            let url = place.write(&format!("{name}-{width}.html"), &page);
            frames.push_str(&format!("<iframe src='{url}' style='width:{width}px;height:900px;border:0'></iframe>"));
            expected.push((format!("{name}-{width} width={width} scroll={width} "), width));
        }
    }
    let listen = "addEventListener('message', event => { document.title += '\\n' + event.data; \
                  document.querySelector('pre').textContent += event.data + '\\n'; });";
    let host = format!("<!DOCTYPE html><pre></pre><script>{listen}</script>{frames}");
    let url = place.write("all.html", &host);
    let output = place.browse(&["--window-size=1600,1200", "--virtual-time-budget=20000", "--dump-dom", &url]);
    assert_eq!(console(&output), Vec::<String>::new());
    let dom = String::from_utf8_lossy(&output.stdout);
    let (_, said) = dom.split_once("<pre>").expect("where they are heard");
    let said: Vec<&str> = said.split("</pre>").next().unwrap_or_default().lines().collect();
    for (start, width) in expected {
        let line = said.iter().find(|line| line.starts_with(&start));
        let line = line.unwrap_or_else(|| panic!("{start:?} at {width} pixels: {said:#?}"));
        assert!(line.trim_end().ends_with("fetched=0"), "{line}");
        assert!(!line.contains("plots=0 "), "{line}");
    }
}

#[test]
fn pictures_show_something_and_the_console_is_silent() {
    let Some(place) = Place::with_browser("pictures") else { return };
    for (name, outcomes) in pages().into_iter().filter(|page| matches!(page.0, "capacity" | "drill-of-two" | "peers")) {
        for width in [DESKTOP, PHONE] {
            let (file, console) = place.picture(name, &report::html(&outcomes), width, &[]);
            assert_eq!(console, Vec::<String>::new(), "{name}");
            let seen = Seen::of(&file, width);
            assert!(seen.colours >= 40 && seen.inked > 0.02, "{name} at {width}: {seen:?}");
            assert!(seen.background.iter().all(|part| *part > 200), "{name} at {width} is light: {seen:?}");
        }
    }
    let page = report::html(&[outcomes::invalid()]);
    let (file, _) = place.picture("dark", &page, DESKTOP, &["--blink-settings=preferredColorScheme=0"]);
    let seen = Seen::of(&file, DESKTOP);
    assert!(seen.colours >= 40 && seen.background.iter().all(|part| *part < 60), "dark: {seen:?}");
}

#[test]
fn what_a_console_says_would_be_heard() {
    let Some(place) = Place::with_browser("control") else { return };
    let (_, console) =
        place.picture("loud", "<!DOCTYPE html><script>console.error('heard'); nothing()</script>", PHONE, &[]);
    assert!(console.iter().any(|line| line.contains("heard")), "{console:?}");
}

/// What is on a picture.
#[derive(Debug)]
struct Seen {
    colours: usize,
    /// The most frequent colour.
    background: [u8; 3],
    /// Part of the pixels that differ from it clearly.
    inked: f64,
}

impl Seen {
    /// Of its leftmost pixels.
    fn of(file: &Path, width: u32) -> Self {
        let decoder = png::Decoder::new(std::io::BufReader::new(std::fs::File::open(file).expect("a picture")));
        let mut reader = decoder.read_info().expect("PNG");
        let mut bytes = vec![0; reader.output_buffer_size().expect("it fits")];
        let info = reader.next_frame(&mut bytes).expect("whole");
        let pixel_bytes = info.line_size / info.width as usize;
        let lines = bytes.chunks(info.line_size);
        let pixels: Vec<[u8; 3]> = lines
            .flat_map(|line| line.chunks(pixel_bytes).take(width as usize))
            .map(|pixel| [pixel[0], pixel[1], pixel[2]])
            .collect();
        let mut counts = std::collections::HashMap::new();
        pixels.iter().for_each(|pixel| *counts.entry(*pixel).or_insert(0_u32) += 1);
        let background = counts.iter().max_by_key(|count| count.1).map_or([0; 3], |most| *most.0);
        let differs = |pixel: &&[u8; 3]| pixel.iter().zip(background).any(|(a, b)| a.abs_diff(b) > 60);
        let inked = pixels.iter().filter(differs).count() as f64 / pixels.len().max(1) as f64;
        Self { colours: counts.keys().collect::<HashSet<_>>().len(), background, inked }
    }
}
