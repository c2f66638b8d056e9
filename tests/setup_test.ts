import { strict as assert } from "node:assert";
import { test } from "node:test";
import {
  backportsSource,
  majorVersion,
  osReleaseField,
  parseAptSources,
  readJunit,
} from "./setup.ts";

const DEB822 = `Types: deb
# http://snapshot.debian.org/archive/debian/20250520T000000Z
URIs: http://mirror.example/debian
Suites: bookworm bookworm-updates
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: http://mirror.example/debian-security
Suites: bookworm-security
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
`;

const ONE_LINE = `# the installer's disc
deb cdrom:[Debian GNU/Linux 12]/ bookworm main
deb [arch=amd64 signed-by=/etc/k.gpg] http://mirror.example/debian/ bookworm main contrib # ours
deb-src http://mirror.example/debian/ bookworm main
deb http://mirror.example/debian/ bookworm-updates main
#deb http://mirror.example/debian/ bookworm-backports main
`;

test("backportsSource() keeps mirror, key and components of a deb822 file", () => {
  const file = backportsSource(parseAptSources(DEB822, "sources"), "bookworm");
  assert.deepEqual(file, {
    name: "winwinlay-backports.sources",
    text:
      "types: deb\nuris: http://mirror.example/debian\nsuites: bookworm-backports\ncomponents: main\n" +
      "signed-by: /usr/share/keyrings/debian-archive-keyring.gpg\n",
  });
});

test("backportsSource() keeps options and components of a one-line file", () => {
  const file = backportsSource(parseAptSources(ONE_LINE, "list"), "bookworm");
  assert.deepEqual(file, {
    name: "winwinlay-backports.list",
    text:
      "deb [arch=amd64 signed-by=/etc/k.gpg] http://mirror.example/debian/ bookworm-backports main contrib\n",
  });
});

test("backportsSource() prefers the release's own archive to others with the same suite", () => {
  const foreign =
    "deb https://packages.example/linux bookworm main\ndeb https://docker.example/linux/debian bookworm stable\n";
  const sources = [
    ...parseAptSources(foreign, "list"),
    ...parseAptSources(DEB822, "sources"),
  ];
  const file = backportsSource(sources, "bookworm");
  assert.ok(typeof file === "object" && file.text.includes("mirror.example"));
});

test("backportsSource() copies an embedded key and its blank-line dots", () => {
  const key =
    "\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n mDMEY\n# a comment\n =abcd\n -----END PGP PUBLIC KEY BLOCK-----";
  const text =
    `Types: deb deb-src\nURIs: http://a.example/debian\nSuites: bookworm\nComponents: main\nArchitectures: amd64\nSigned-By:${key}\n`;
  const file = backportsSource(parseAptSources(text, "sources"), "bookworm");
  assert.ok(typeof file === "object");
  const again = parseAptSources(file.text, "sources")[0]!;
  assert.deepEqual(again.suites, ["bookworm-backports"]);
  assert.equal(again.extra.get("architectures"), " amd64");
  assert.equal(
    again.extra.get("signed-by"),
    key.replace("# a comment\n", ""),
  );
});

test("backportsSource() says present, or undefined when the release has no source", () => {
  const there =
    "Types: deb\nURIs: http://a.example/debian\nSuites: bookworm bookworm-backports\nComponents: main\n";
  const sources = parseAptSources(there, "sources");
  assert.equal(backportsSource(sources, "bookworm"), "present");
  assert.equal(backportsSource(sources, "trixie"), undefined);
  assert.equal(backportsSource([], "bookworm"), undefined);
  const off = there.replace("Types", "Enabled: no\nTypes");
  assert.deepEqual(parseAptSources(off, "sources"), []);
});

test("majorVersion() reads versions and apt-cache policy", () => {
  assert.equal(majorVersion("25.0.7-2~bpo12+1"), 25);
  assert.equal(majorVersion("1:22.3.6-1+deb12u2"), 22);
  const policy =
    "mesa-vulkan-drivers:\n  Installed: (none)\n  Candidate: 22.3.6-1+deb12u2\n  Version table:\n     25.0.7-2 100\n";
  assert.equal(majorVersion(policy), 22);
  assert.equal(majorVersion("x:\n  Candidate: (none)\n"), undefined);
  assert.equal(majorVersion(""), undefined);
});

test("osReleaseField() strips quotes and takes the exact name", () => {
  const text =
    'VERSION_ID="12"\nVERSION_CODENAME=bookworm\nID_LIKE=x\nID=debian\n';
  assert.equal(osReleaseField(text, "VERSION_CODENAME"), "bookworm");
  assert.equal(osReleaseField(text, "VERSION_ID"), "12");
  assert.equal(osReleaseField(text, "ID"), "debian");
  assert.equal(osReleaseField(text, "NAME"), "");
});

test("readJunit() reads Deno's and Bun's reports, also with tags in messages", () => {
  const deno = `<testsuites name="deno test" tests="3">
    <testsuite name="a_test.ts" tests="3">
      <testcase name="a &lt; b > c" time="0.001">
      </testcase>
      <testcase name="bad &quot;x&quot; > y"><failure message="a > &lt;testcase x&gt;">E: &lt;skipped/&gt;
    at &amp;lt; a_test.ts</failure>
      </testcase>
      <testcase name="s"><skipped/></testcase>
    </testsuite></testsuites>`;
  const bun = `<testsuites name="bun test"><testsuite>
    <testcase name="a" assertions="0" />
    <testcase name="b"><failure type="Error" /></testcase>
    <testcase name="d"><failure type="Error">E&#10;&#x41;</failure></testcase>
    <testcase name="s"><skipped /></testcase>
    <testcase name="c" assertions="0" />
  </testsuite></testsuites>`;
  assert.deepEqual(readJunit(deno), {
    passed: 1,
    failed: 1,
    skipped: 1,
    failures: [{
      name: 'bad "x" > y',
      text: "E: <skipped/>\n    at &lt; a_test.ts",
    }],
  });
  assert.deepEqual(readJunit(bun), {
    passed: 2,
    failed: 2,
    skipped: 1,
    failures: [{ name: "b", text: "" }, { name: "d", text: "E\nA" }],
  });
  const none = { passed: 0, failed: 0, skipped: 0, failures: [] };
  assert.deepEqual(readJunit(""), none);
});
