/**
 * What `tests/run.ts` needs of the machine: Bun, the npm packages, and a Vulkan
 * driver. Looks first, installs only what is missing.
 */

import {
  type AptFile,
  type AptSource,
  backportsSource,
  majorVersion,
  osReleaseField,
  parseAptSources,
} from "./setup.ts";

/** What the tests were made with; older ones lack parts of node:test. */
const BUN_VERSION = "1.4.5";
/** Dawn refuses Mesa 22.3 (Debian 12); 24 and 25 were seen to work. */
const MESA_LEAST = 24;
/** The repository. */
export const ROOT: URL = new URL("../", import.meta.url);
/** For what may be deleted at any time; git ignores it. */
export const CACHE: URL = new URL(".cache/", ROOT);

/** An adapter's description, or why it cannot be had. */
export type Probe = { readonly adapter: string } | { readonly reason: string };

/** Runs a program to its end; stdout and stderr as text, never throws. */
async function capture(
  program: string,
  args: readonly string[],
  options: { cwd?: URL; env?: Record<string, string> } = {},
): Promise<{ ok: boolean; stdout: string; stderr: string }> {
  try {
    const { cwd = ROOT, env = {} } = options;
    const out = await new Deno.Command(program, {
      args: [...args],
      cwd,
      env: { NO_COLOR: "1", ...env },
      stdin: "null",
    }).output();
    const text = new TextDecoder();
    return {
      ok: out.success,
      stdout: text.decode(out.stdout),
      stderr: text.decode(out.stderr),
    };
  } catch (error) {
    return { ok: false, stdout: "", stderr: String(error) };
  }
}

/**
 * Bun from PATH, or from npm through `deno install`, which needs neither npm
 * nor Node; then the packages of package.json, for Bun to resolve. (`bun test`
 * neither reads NODE_PATH nor installs on the fly.)
 */
export async function findBun(): Promise<string> {
  let bun = "bun";
  const { stdout } = await capture(bun, ["--version"]);
  if (stdout.trim().localeCompare(BUN_VERSION, "en", { numeric: true }) < 0) {
    const folder = new URL("runtimes/", CACHE);
    await Deno.mkdir(folder, { recursive: true });
    const write = (name: string, value: unknown) =>
      Deno.writeTextFile(new URL(name, folder), JSON.stringify(value));
    await write("package.json", { dependencies: { bun: BUN_VERSION } });
    // Of its own, or the one above it would apply
    await write("deno.json", { nodeModulesDir: "auto" });
    const install = await capture(
      Deno.execPath(),
      ["install", "--allow-scripts=npm:bun"],
      { cwd: folder },
    );
    bun = decodeURIComponent(
      new URL("node_modules/.bin/bun", folder).pathname,
    );
    const check = await capture(bun, ["--version"]);
    if (!check.ok) {
      throw new Error(
        `Cannot install Bun ${BUN_VERSION} from npm: it must run: current error is "${
          lastLine(install.ok ? check.stderr : install.stderr)
        }"; or put one on PATH with \`npm install -g bun\``,
      );
    }
  }
  const packages = await capture(bun, [
    "install",
    "--no-save",
    "--ignore-scripts",
  ]);
  if (!packages.ok) {
    throw new Error(
      `Cannot install the packages of package.json: \`bun install\` must succeed: current error is "${
        lastLine(packages.stderr)
      }"`,
    );
  }
  return bun;
}

function lastLine(text: string): string {
  return text.trim().split("\n").at(-1) ?? "";
}

/** Opens the configured adapter in a child: a driver that crashes must not take us along. */
export async function probe(
  program: string,
  device: string,
  env: Record<string, string>,
): Promise<Probe> {
  const script = `import(${
    JSON.stringify(new URL("kernels/adapter.ts", ROOT).href)
  }).then((m) => m.openAdapter({ device: ${JSON.stringify(device)} })).then(
    (o) => console.log("FOUND " + o.info.description),
    (e) => console.log("REASON " + e.message));`;
  const verb = program === Deno.execPath() ? "eval" : "-e";
  const out = await capture(program, [verb, script], { env });
  const line = out.stdout.match(/^(FOUND|REASON) (.*)$/m);
  if (line?.[1] === "FOUND") return { adapter: line[2]! };
  return { reason: line?.[2] ?? lastLine(out.stderr) };
}

/** The ICD file of Mesa's software Vulkan driver, lavapipe. */
async function lavapipeFile(): Promise<string | undefined> {
  for (const folder of ["/usr/share/vulkan/icd.d", "/etc/vulkan/icd.d"]) {
    try {
      for await (const { name } of Deno.readDir(folder)) {
        if (/^lvp_icd.*\.json$/.test(name)) return `${folder}/${name}`;
      }
    } catch (error) {
      if (!(error instanceof Deno.errors.NotFound)) throw error;
    }
  }
  return undefined;
}

/** Chooses lavapipe for the children, past any GPU and past OpenGL. */
export async function softwareEnv(): Promise<Record<string, string>> {
  const file = await lavapipeFile();
  const backend = { DENO_WEBGPU_BACKEND: "vulkan" };
  if (file === undefined) return backend;
  // The second name is for loaders before 1.3.207
  return { ...backend, VK_DRIVER_FILES: file, VK_ICD_FILENAMES: file };
}

/**
 * Installs lavapipe, from backports where the release's own is too old for
 * Dawn, or prints what would be done.
 *
 * @returns Whether anything was installed.
 */
export async function installVulkan(allowed: boolean): Promise<boolean> {
  const status = await capture("dpkg-query", [
    "-W",
    "-f=${Version}",
    "mesa-vulkan-drivers",
  ]);
  if (status.ok && (majorVersion(status.stdout) ?? 0) >= MESA_LEAST) {
    console.log(
      `Mesa ${status.stdout} is installed: the driver is not the reason`,
    );
    return false;
  }
  if (Deno.build.os !== "linux" || !(await capture("apt-get", ["-v"])).ok) {
    console.log(
      `Install a Vulkan driver: Mesa's lavapipe, version ${MESA_LEAST} or newer`,
    );
    return false;
  }
  const may = allowed && Deno.uid() === 0;
  const apt = async (...args: string[]): Promise<boolean> => {
    console.log(`  apt-get ${args.join(" ")}`);
    if (!may) return true;
    const { ok, stderr } = await capture("apt-get", [
      "-o=DPkg::Lock::Timeout=120",
      ...args,
    ], { env: { DEBIAN_FRONTEND: "noninteractive" } });
    if (!ok) console.log(stderr.trim());
    return ok;
  };
  console.log(
    may
      ? "Installing the software Vulkan driver:"
      : "To get a software Vulkan driver, run as root (or repeat as root with --install):",
  );
  await apt("update");
  const packages = ["mesa-vulkan-drivers", "libvulkan1"];
  const policy = await capture("apt-cache", ["policy", packages[0]!]);
  const release = await readText("/etc/os-release");
  const codename = osReleaseField(release, "VERSION_CODENAME");
  const major = majorVersion(policy.stdout);
  // Before the first update apt may know nothing: then go by the release
  const own = major === undefined
    ? codename !== "bookworm"
    : major >= MESA_LEAST;
  const install = ["install", "-y", "--no-install-recommends"];
  if (own) return await apt(...install, ...packages) && may;
  const file = backportsSource(await aptSources(), codename);
  if (osReleaseField(release, "ID") !== "debian" || file === undefined) {
    console.log(
      `This release has Mesa ${major} and no backports: install Mesa ${MESA_LEAST} or newer`,
    );
    return false;
  }
  if (file !== "present") {
    await addSource(file, may);
    await apt("update");
  }
  return await apt(...install, "-t", `${codename}-backports`, ...packages) &&
    may;
}

async function addSource(file: AptFile, may: boolean): Promise<void> {
  const path = `/etc/apt/sources.list.d/${file.name}`;
  console.log(`  cat > ${path} <<END\n${file.text}END`);
  if (may) await Deno.writeTextFile(path, file.text);
}

async function aptSources(): Promise<AptSource[]> {
  const paths = ["/etc/apt/sources.list"];
  try {
    for await (const { name } of Deno.readDir("/etc/apt/sources.list.d")) {
      paths.push(`/etc/apt/sources.list.d/${name}`);
    }
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  }
  const sources: AptSource[] = [];
  for (const path of paths.sort()) {
    const format = path.match(/\.(list|sources)$/)?.[1];
    if (!format) continue;
    const text = await readText(path);
    sources.push(...parseAptSources(text, format as "list" | "sources"));
  }
  return sources;
}

/** The text of a file, "" if there is none. */
export async function readText(path: string | URL): Promise<string> {
  try {
    return await Deno.readTextFile(path);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return "";
    throw error;
  }
}
