import { strict as assert } from "node:assert";
import { spawn } from "node:child_process";
import { readdir, utimes, writeFile } from "node:fs/promises";
import { hostname } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { test } from "node:test";
import { LockedError, takeLock } from "../../weights/lock_file.ts";
import { tempFolder } from "./temp_folder.ts";

const GONE = JSON.stringify({ pid: 2 ** 22 + 1, host: hostname() });

for (
  const [title, before] of [
    ["no lock", undefined],
    ["a gone process's", GONE],
    ["a cut one", ""],
  ] as const
) {
  test(`takeLock() lets in one of twenty: ${title}`, async () => {
    await using folder = await tempFolder(
      before === undefined ? {} : { lock: before },
    );
    const path = join(folder.path, "lock");
    const runs = await Promise.allSettled(
      Array.from({ length: 20 }, () => takeLock(path)),
    );
    const won = runs.filter((run) => run.status === "fulfilled");
    assert.equal(won.length, 1);
    for (const run of runs) {
      if (run.status === "rejected") {
        assert.ok(run.reason instanceof LockedError);
      }
    }
    assert.deepEqual(await readdir(folder.path), ["lock"]);
    await won[0]!.value[Symbol.asyncDispose]();
    assert.deepEqual(await readdir(folder.path), []);
    await using _again = await takeLock(path);
  });
}

test("takeLock() refuses what another process or machine holds", async () => {
  await using folder = await tempFolder({});
  const path = join(folder.path, "lock");
  await writeFile(
    path,
    JSON.stringify({ pid: process.ppid, host: hostname() }),
  );
  await assert.rejects(
    takeLock(path),
    (error: Error) =>
      /no other process may hold it: current is process \d+/
        .test(error.message) &&
      error.message.endsWith(
        `; remove ${path} if that one is gone or another program`,
      ),
  );
  await writeFile(
    path,
    JSON.stringify({ pid: process.ppid, host: "elsewhere" }),
  );
  await assert.rejects(
    takeLock(path),
    (error: Error) =>
      error.message.endsWith(
        `no other process may hold it: current is process ${process.ppid} of elsewhere; remove ${path} if that one is gone or another program`,
      ),
  );
  assert.deepEqual(await readdir(folder.path), ["lock"]);
});

test("takeLock() goes past what a process left that was killed while it put a lock aside", async () => {
  await using folder = await tempFolder({ lock: GONE, "lock.aside": "" });
  const path = join(folder.path, "lock");
  await assert.rejects(takeLock(path), /^LockedError: .*keeps coming back$/);
  await utimes(`${path}.aside`, 0, Date.now() / 1000 - 11);
  await using _lock = await takeLock(path);
  assert.deepEqual(await readdir(folder.path), ["lock"]);
});

test("processes that want one lock at once hold it one at a time", async () => {
  await using folder = await tempFolder({ lock: GONE });
  // Each takes the lock again and again; `inside` can be made by one at a time.
  const script = join(folder.path, "child.ts");
  await writeFile(
    script,
    `
import { rename, rm, writeFile } from "node:fs/promises";
import process from "node:process";
import { takeLock } from ${
      JSON.stringify(
        new URL("../../weights/lock_file.ts", import.meta.url).href,
      )
    };
const inside = ${JSON.stringify(join(folder.path, "inside"))};
let times = 0;
for (const end = Date.now() + 700; Date.now() < end;) {
  const lock = await takeLock(${
      JSON.stringify(join(folder.path, "lock"))
    }).catch((e) => {
    if (e.name !== "LockedError") throw e;
  });
  if (!lock) continue;
  await writeFile(inside, "", { flag: "wx" });
  await rm(inside);
  // Every other time as if it had been killed
  const left = lock.path + process.pid;
  await writeFile(left, ${
      JSON.stringify(GONE)
    }.replace("}", ',"n":' + times + "}"));
  if (times % 2) await rm(left);
  else await rename(left, lock.path);
  await lock[Symbol.asyncDispose]();
  times++;
}
console.log(times);
`,
  );
  const results = await Promise.all(
    Array.from({ length: 3 }, () =>
      new Promise<string>((resolve) => {
        const args = "Deno" in globalThis
          ? ["run", "-A", "--no-check", script]
          : [script];
        const child = spawn(process.execPath, args);
        let text = "";
        child.stdout.on("data", (chunk) => text += chunk);
        child.stderr.on("data", (chunk) => text += chunk);
        child.on("close", () => resolve(text.trim()));
      })),
  );
  for (const result of results) assert.match(result, /^\d+$/);
  assert.ok(results.reduce((sum, n) => sum + Number(n), 0) > 3, results.join());
});
