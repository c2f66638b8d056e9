/** `weights`: what is in the shared cache, whether it is right, and how more gets in. */
import {
  type CachedRevision,
  hubCacheFolder,
  listCache,
  parseHubName,
  pull,
  type PullProgress,
  verifyRevision,
  WeightsError,
} from "../mod.ts";
import { type Flags, UsageError } from "./flags.ts";
import { formatBytes, formatSeconds, formatTable, type Io } from "./io.ts";

/** `weights list`, `weights verify [REPO]`, `weights pull REPO [FILE ...]`. */
export async function weights(flags: Flags, io: Io): Promise<number> {
  const [action, ...words] = flags.words;
  const only: Readonly<Record<string, readonly string[]>> = {
    list: ["json"],
    verify: ["revision", "json"],
    pull: ["revision", "variant", "endpoint", "json"],
  };
  if (action === undefined || !Object.hasOwn(only, action)) {
    throw new UsageError(
      `Cannot run weights ${
        action ?? ""
      }: it must be list, verify or pull: current ${
        action === undefined ? "none" : JSON.stringify(action)
      }`.replace("  ", " ").replace("weights :", "weights:"),
    );
  }
  for (const name of ["revision", "variant", "endpoint", "json"]) {
    if (flags.has(name) && !only[action]!.includes(name)) {
      throw new UsageError(
        `Cannot use --${name}: weights ${action} has no such option`,
      );
    }
  }
  if (action === "list") {
    if (words.length) {
      throw new UsageError(
        `Cannot use ${JSON.stringify(words[0])}: weights list takes no words`,
      );
    }
    return await list(flags, io);
  }
  return action === "verify"
    ? await verify(words, flags, io)
    : await fetchFiles(words, flags, io);
}

async function list(flags: Flags, io: Io): Promise<number> {
  const found = await listCache();
  if (flags.has("json")) {
    for (
      const { repo, commit, refs, path, files, state, unfinished } of found
    ) {
      const bytes = sizeOf(files);
      const missing = files.filter((f) => f.size === undefined).map((f) =>
        f.name
      );
      io.out(
        JSON.stringify({
          repo,
          commit,
          refs,
          path,
          files: files.length,
          bytes,
          missing,
          state,
          unfinished,
        }),
      );
    }
    return 0;
  }
  if (found.length === 0) {
    io.out(`nothing in ${hubCacheFolder()}`);
    return 0;
  }
  const rows = found.map(({ repo, commit, refs, files, state, unfinished }) => {
    const missing = files.filter((f) => f.size === undefined).length;
    const states = [
      ...(missing ? [`${missing} files missing`] : []),
      ...(state !== "complete" ? [state] : []),
      ...(unfinished.length ? ["a pull is unfinished"] : []),
    ];
    return [
      repo,
      refs.join(", ") || "-",
      commit.slice(0, 8),
      `${files.length}`,
      formatBytes(sizeOf(files)),
      states.join(", ") || state,
    ];
  });
  for (
    const line of formatTable(
      [["repository", "revision", "commit", "files", "size", "state"], ...rows],
      [3, 4],
    )
  ) io.out(line);
  return 0;
}

function sizeOf(files: CachedRevision["files"]): number {
  return files.reduce((sum, { size = 0 }) => sum + size, 0);
}

async function verify(
  words: readonly string[],
  flags: Flags,
  io: Io,
): Promise<number> {
  if (words.length > 1) {
    throw new UsageError(
      `Cannot use ${
        JSON.stringify(words[1])
      }: weights verify takes one repository`,
    );
  }
  if (words[0] === undefined && flags.has("revision")) {
    throw new UsageError(
      "Cannot use --revision: there must be a repository, owner/name: current none",
    );
  }
  const wanted = words[0] === undefined ? undefined : nameOf(words[0], flags);
  const found = (await listCache()).filter(({ repo, commit, refs }) =>
    wanted === undefined ||
    (repo === wanted.repo &&
      (!flags.has("revision") && !words[0]!.includes("@") ||
        refs.includes(wanted.revision) || commit === wanted.revision))
  );
  if (found.length === 0) {
    throw new WeightsError(
      `Cannot verify ${
        words[0] ?? "the cache"
      }: it must be in ${hubCacheFolder()}: current cache has ${
        wanted ? "none of it" : "nothing"
      }`,
    );
  }
  let [files, bad, unknown] = [0, 0, 0];
  for (const revision of found) {
    for await (
      const { file, problem, hashed } of verifyRevision(revision, io)
    ) {
      files++;
      if (!hashed) unknown++;
      if (problem !== undefined) bad++;
      const { repo, commit } = revision;
      if (flags.has("json")) {
        io.out(
          JSON.stringify({
            repo,
            commit,
            file: file.name,
            ok: problem === undefined,
            hashed,
            problem,
          }),
        );
      } else if (problem !== undefined) {
        io.out(`${repo}@${commit.slice(0, 8)} ${file.name}: ${problem}`);
      }
    }
  }
  io.say(`${files} files, ${bad} bad, ${unknown} without a hash to compare`);
  return bad ? 3 : 0;
}

async function fetchFiles(
  words: readonly string[],
  flags: Flags,
  io: Io,
): Promise<number> {
  const [repo, ...files] = words;
  if (repo === undefined) {
    throw new UsageError(
      "Cannot pull: there must be a repository, owner/name: current none",
    );
  }
  const name = nameOf(repo, flags);
  if (files.length && flags.has("variant")) {
    throw new UsageError(
      `Cannot use --variant: files that are named must be of the variant by their names: current ${
        files.join(" ")
      }`,
    );
  }
  let at = { file: "", since: 0, from: 0, drawn: 0 };
  const onProgress = (
    { file, done, size, index, count }: PullProgress,
  ): void => {
    const now = performance.now();
    if (file !== at.file) at = { file, since: now, from: done, drawn: 0 };
    if (done < size && now - at.drawn < 100) return;
    at.drawn = now;
    const seconds = (now - at.since) / 1000;
    const rate = (done - at.from) / Math.max(0.001, seconds);
    const left = rate > 0 && done < size
      ? `, ${formatSeconds((size - done) / rate)} left`
      : "";
    const text = `${index}/${count} ${file} ${formatBytes(done)} of ${
      formatBytes(size)
    }${rate > 0 ? `, ${formatBytes(rate)}/s` : ""}${left}`;
    if (flags.has("json")) {
      io.out(JSON.stringify({ file, done, size, index, count }));
    } else if (io.live) {
      io.live(`\r\x1b[2K${text.slice(0, Math.max(0, io.columns - 1))}`);
    } else if (done === size) io.say(text);
  };
  const result = await pull(name, {
    signal: io.signal,
    variant: flags.choice<"fp16">("variant"),
    endpoint: flags.text("endpoint"),
    files,
    onProgress,
  });
  io.live?.("\r\x1b[2K");
  const { path, commit, named, fetchedBytes } = result;
  if (flags.has("json")) {
    io.out(
      JSON.stringify({
        repo: name.repo,
        commit,
        path,
        named,
        files: result.files,
        fetchedBytes,
      }),
    );
  } else io.out(path);
  io.say(
    `${formatBytes(fetchedBytes)} fetched, ${result.files.length} files at ${
      commit.slice(0, 8)
    }`,
  );
  if (!named) {
    io.say(
      `note: ${name.revision} stays at an earlier commit, since files of it are others now: open ${name.repo}@${commit}, or pull those too`,
    );
  }
  return 0;
}

function nameOf(
  text: string,
  flags: Flags,
): { repo: string; revision: string } {
  const name = parseHubName(text);
  if (name === undefined) {
    throw new UsageError(
      `Cannot use ${
        JSON.stringify(text)
      }: it must be a repository, owner/name: current one is not`,
    );
  }
  const revision = flags.text("revision");
  if (revision === undefined) return name;
  const both = parseHubName(`${name.repo}@${revision}`);
  if (both === undefined || text.includes("@")) {
    throw new UsageError(
      `Cannot use --revision: it must be a branch, a tag or a commit, said once: current ${
        JSON.stringify(revision)
      }`,
    );
  }
  return both;
}
