/**
 * The parts of `tests/run.ts` that are text in, text out: which Debian package
 * source carries a Vulkan driver that Dawn accepts, and what a test report says.
 */

/** One package source of apt. */
export interface AptSource {
  /** Format of the file it comes from: `.sources` (deb822) or `.list` (one line each). */
  readonly format: "sources" | "list";
  readonly uris: readonly string[];
  readonly suites: readonly string[];
  readonly components: readonly string[];
  /**
   * deb822: every other field with its raw value (Signed-By, Architectures, Trusted).
   * One line: the text between the brackets, under "options".
   */
  readonly extra: ReadonlyMap<string, string>;
}

/** A file for `/etc/apt/sources.list.d`. */
export interface AptFile {
  readonly name: string;
  readonly text: string;
}

/** Counts of one JUnit report. */
export interface Counts {
  readonly passed: number;
  readonly failed: number;
  readonly skipped: number;
}

/** A test that failed: its name, and what it threw, with the stack. */
export interface Failure {
  readonly name: string;
  readonly text: string;
}

/** What one JUnit report says. */
export interface Report extends Counts {
  readonly failures: readonly Failure[];
}

/**
 * Reads the enabled binary package sources of one file.
 *
 * @param format By the file's ending: `.sources` or `.list`.
 * @returns In file order; sources of other types (deb-src) and CD-ROMs are left out.
 */
export function parseAptSources(
  text: string,
  format: AptSource["format"],
): AptSource[] {
  return format === "sources" ? parseDeb822(text) : parseOneLine(text);
}

function parseDeb822(text: string): AptSource[] {
  const sources: AptSource[] = [];
  // A comment may stand inside a paragraph and even inside a value
  const lines = text.split("\n").filter((line) => !line.startsWith("#"));
  for (const paragraph of lines.join("\n").split(/\n[ \t\r]*\n/)) {
    const fields = new Map<string, string>();
    // A line that starts with a space continues the value: a key may be embedded so
    for (const match of paragraph.matchAll(/^([\w-]+):(.*(?:\n[ \t].*)*)/gm)) {
      fields.set(match[1]!.toLowerCase(), match[2]!.trimEnd());
    }
    const take = (name: string) => {
      const value = fields.get(name) ?? "";
      fields.delete(name);
      return value.split(/\s+/).filter((word) => word !== "");
    };
    const types = take("types");
    const [uris, suites, components] = [
      take("uris"),
      take("suites"),
      take("components"),
    ];
    const enabled = (fields.get("enabled") ?? "yes").trim().toLowerCase();
    if (!types.includes("deb") || ["no", "false", "0"].includes(enabled)) {
      continue;
    }
    sources.push({
      format: "sources",
      uris,
      suites,
      components,
      extra: fields,
    });
  }
  return sources;
}

function parseOneLine(text: string): AptSource[] {
  const sources: AptSource[] = [];
  for (const line of text.split("\n")) {
    const match = line.replace(/#.*/, "").trim().match(
      /^deb\s+(?:\[([^\]]*)\]\s+)?(\S+)\s+(\S+)\s*(.*)$/,
    );
    if (!match || match[2]!.startsWith("cdrom:")) continue;
    const [, options, uri, suite, components] = match;
    sources.push({
      format: "list",
      uris: [uri!],
      suites: [suite!],
      components: components!.split(/\s+/).filter((word) => word !== ""),
      extra: new Map(options ? [["options", options.trim()]] : []),
    });
  }
  return sources;
}

/**
 * Derives the source of `<codename>-backports` from the machine's own sources:
 * same mirror, same key, same components, so that it works behind any mirror.
 *
 * @param sources All of the machine's sources.
 * @param codename Of the release, such as "bookworm".
 * @returns The file to add; "present" if the suite is there already; undefined if no source of the release itself was found.
 */
export function backportsSource(
  sources: readonly AptSource[],
  codename: string,
): AptFile | "present" | undefined {
  const suite = `${codename}-backports`;
  if (sources.some(({ suites }) => suites.includes(suite))) return "present";
  // Other people's archives use the codename as a suite too: the release's own has
  // "main", and "-updates" at the same address
  const updates = new Set(
    sources.filter(({ suites }) => suites.includes(`${codename}-updates`))
      .flatMap(({ uris }) => uris),
  );
  const own = sources.filter(({ suites, components }) =>
    suites.includes(codename) && components.includes("main")
  );
  const base = own.find(({ uris }) => uris.some((uri) => updates.has(uri))) ??
    own[0];
  if (!base) return undefined;
  const components = base.components.join(" ");
  const name = `winwinlay-backports.${base.format}`;
  if (base.format === "list") {
    const options = base.extra.get("options");
    const head = options ? `deb [${options}]` : "deb";
    const lines = base.uris.map((uri) =>
      `${head} ${uri} ${suite} ${components}\n`
    );
    return { name, text: lines.join("") };
  }
  const extra = [...base.extra].map(([key, value]) => `${key}:${value}\n`);
  return {
    name,
    text: `types: deb\nuris: ${
      base.uris.join(" ")
    }\nsuites: ${suite}\ncomponents: ${components}\n${extra.join("")}`,
  };
}

/** One field of `/etc/os-release`, without its quotes; "" if it is not there. */
export function osReleaseField(text: string, field: string): string {
  const line = text.split("\n").find((line) => line.startsWith(`${field}=`));
  return line?.slice(field.length + 1).trim().replace(/^(["'])(.*)\1$/, "$2") ??
    "";
}

/**
 * The major version in a Debian version ("25.0.7-2~bpo12+1", "1:22.3.6-1") or
 * in the Candidate line of `apt-cache policy`; undefined if there is none.
 */
export function majorVersion(text: string): number | undefined {
  const candidate = text.match(/^\s*Candidate:\s*(.*)$/m)?.[1] ?? text;
  const major = candidate.trim().match(/^(?:\d+:)?(\d+)\./)?.[1];
  return major === undefined ? undefined : Number(major);
}

/** Reads a JUnit report as Deno and Bun write it; an empty one has no cases. */
export function readJunit(xml: string): Report {
  let [passed, skipped] = [0, 0];
  const failures: Failure[] = [];
  // Text and attributes escape "<", so a tag is a tag wherever it stands
  for (const piece of xml.split(/<testcase\b/).slice(1)) {
    const body = piece.split("</testcase>")[0]!;
    const failure = body.match(/<(failure|error)\b[^<]*/)?.[0];
    if (failure !== undefined) {
      const name = body.match(/ name="([^"]*)"/)?.[1] ?? "";
      // ">" may stand in an attribute, a quotation mark not
      const text = failure.match(/^<\w+(?:[^"<>]|"[^"]*")*>(.*)/s)?.[1] ?? "";
      failures.push({ name: unescapeXml(name), text: unescapeXml(text) });
    } else if (/<skipped\b/.test(body)) skipped++;
    else passed++;
  }
  return { passed, failed: failures.length, skipped, failures };
}

/** Resolves what XML escapes, with decimal and hexadecimal code points. */
function unescapeXml(text: string): string {
  const named: Record<string, string> = {
    amp: "&",
    lt: "<",
    gt: ">",
    quot: '"',
    apos: "'",
  };
  return text.replace(
    /&(?:#x([\da-f]+)|#(\d+)|(\w+));/gi,
    (all, hex?: string, decimal?: string, name?: string) =>
      name !== undefined
        ? named[name] ?? all
        : String.fromCodePoint(parseInt((hex ?? decimal)!, hex ? 16 : 10)),
  );
}
