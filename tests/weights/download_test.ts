import { strict as assert } from "node:assert";
import { createHash } from "node:crypto";
import { readdir, readFile, writeFile } from "node:fs/promises";
import type { IncomingMessage, ServerResponse } from "node:http";
import { join } from "node:path";
import { after, test } from "node:test";
import { gzipSync } from "node:zlib";
import { download } from "../../weights/download.ts";
import { MissingFileError, WeightsError } from "../../weights/errors.ts";
import { sendBody } from "./fake_hub.ts";
import { serve } from "./http_server.ts";
import { tempFolder } from "./temp_folder.ts";

if ("Deno" in globalThis) Deno.test.sanitizer({ ops: true, resources: true });

const SIZE = 200_003;
const BODY = Uint8Array.from({ length: SIZE }, (_, i) => (i * 7919) >> 5);
const HASH = createHash("sha256").update(BODY).digest("hex");
const OTHER = BODY.map((x) => x ^ 255);
const HALF = 100_000;

type Answer = (request: IncomingMessage, response: ServerResponse) => void;

/** Not at once: Bun drops what it has not handed out when the connection ends. */
function hangUp(response: ServerResponse): void {
  setTimeout(() => response.destroy(), 30);
}

/** Takes the request and says nothing more. */
const silent: Answer = () => {};

const good: Answer = (q, r) => sendBody(q, r, BODY);

/** Sends what a good server does and hangs up once the client has `end` bytes of the file. */
function cutAt(end: number, body = BODY): Answer {
  return (request, response) => {
    const first = Number(
      /^bytes=(\d+)-/.exec(request.headers.range ?? "")?.[1] ?? 0,
    );
    response.writeHead(request.headers.range ? 206 : 200, {
      "content-length": body.length - first,
      ...(request.headers.range
        ? { "content-range": `bytes ${first}-${SIZE - 1}/${SIZE}` }
        : {}),
    });
    response.flushHeaders();
    response.write(body.slice(first, end), () => hangUp(response));
  };
}

/** All of a body whatever is asked. */
function whole(
  body: Uint8Array,
  length: number | undefined = body.length,
): Answer {
  return (_, response) => {
    response.writeHead(
      200,
      length === undefined ? {} : { "content-length": length },
    );
    response.end(body);
  };
}

/** As `whole`, and hangs up after `end` bytes. */
function wholeCutAt(end: number): Answer {
  return (_, response) => {
    response.writeHead(200, { "content-length": SIZE });
    response.flushHeaders();
    response.write(BODY.slice(0, end), () => hangUp(response));
  };
}

/** As `cutAt`, and stays silent after `end` bytes. */
function silentAt(end: number): Answer {
  return (_, response) => {
    response.writeHead(200, { "content-length": SIZE });
    response.flushHeaders();
    response.write(BODY.slice(0, end));
  };
}

function partWith(range: string, body = BODY.slice(HALF)): Answer {
  return (_, response) =>
    void response.writeHead(206, {
      "content-range": range,
      "content-length": body.length,
    }).end(body);
}

/** The headers of the second half, and no byte of it. */
const partSilent: Answer = (_, response) => {
  response.writeHead(206, {
    "content-range": `bytes ${HALF}-${SIZE - 1}/${SIZE}`,
    "content-length": SIZE - HALF,
  });
  response.flushHeaders();
};

function status(code: number, headers: Record<string, string> = {}): Answer {
  return (_, response) => void response.writeHead(code, headers).end("no");
}

const flipped = BODY.slice();
flipped[SIZE - 2]! ^= 1;
const gzip: Answer = (_, response) =>
  void response.writeHead(200, { "content-encoding": "gzip" }).end(
    gzipSync(BODY),
  );

/** One case: what lies there, what the server does in turn (then it is good), what comes of it. */
interface Case {
  readonly title: string;
  readonly partial?: Uint8Array;
  readonly answers: readonly Answer[];
  /** The error, or undefined where the file must come. */
  readonly fails?: RegExp;
  /** Waits in milliseconds. */
  readonly waits?: readonly number[];
  /** `Range` of every request. */
  readonly ranges?: readonly string[];
  /** Bytes that stay for the next time. */
  readonly left?: number;
}

const CASES: readonly Case[] = [
  { title: "nothing wrong", answers: [], waits: [], ranges: [""] },
  {
    title: "cut at byte 0",
    answers: [cutAt(0)],
    waits: [500],
    ranges: ["", ""],
  },
  { title: "cut in the middle", answers: [cutAt(HALF)], waits: [500] },
  {
    title: "cut before the last byte",
    answers: [cutAt(SIZE - 1)],
    waits: [500],
  },
  {
    title: "three cuts in a row",
    answers: [cutAt(1000), cutAt(HALF), cutAt(HALF + 1)],
    waits: [500, 500, 500],
  },
  {
    title: "cut for ever at byte 0",
    answers: Array(9).fill(cutAt(0)),
    fails: /200003 bytes must come|whole|must answer/,
    waits: [500, 1000, 2000, 4000],
    left: 0,
  },
  {
    title: "part of an earlier run",
    partial: BODY.slice(0, HALF),
    answers: [],
    ranges: [`bytes=${HALF}-`],
  },
  {
    title: "all of an earlier run but its name",
    partial: BODY,
    answers: [],
    ranges: [],
  },
  {
    title: "Range ignored on resume",
    partial: BODY.slice(0, HALF),
    answers: [whole(BODY)],
    ranges: [`bytes=${HALF}-`],
  },
  {
    title: "Range ignored, and cut for ever at one of two places",
    answers: Array(40).fill([wholeCutAt(HALF), wholeCutAt(HALF + 5000)]).flat(),
    fails: /Cannot download|must send it whole/,
  },
  {
    title: "part of another file from an earlier run",
    partial: OTHER.slice(0, HALF),
    answers: [],
    ranges: [`bytes=${HALF}-`, ""],
  },
  {
    title: "one bit of an earlier run's part flipped",
    partial: flipped.slice(0, SIZE - 1),
    answers: [],
    ranges: [`bytes=${SIZE - 1}-`, ""],
  },
  {
    title: "an earlier part that is longer than the file",
    partial: new Uint8Array(SIZE + 1),
    answers: [],
    ranges: [""],
  },
  {
    title: "a whole wrong file under the part's name",
    partial: OTHER,
    answers: [],
    ranges: [""],
  },
  {
    title: "the file changed between two parts",
    answers: [cutAt(HALF, OTHER)],
    ranges: ["", `bytes=${HALF}-`, ""],
  },
  {
    title: "Content-Range starts elsewhere",
    partial: BODY.slice(0, HALF),
    answers: [partWith(`bytes ${HALF - 1}-${SIZE - 1}/${SIZE}`)],
    fails: /Content-Range must be "bytes 100000-200002\/200003"/,
    left: HALF,
  },
  {
    title: "Content-Range has another total",
    partial: BODY.slice(0, HALF),
    answers: [partWith(`bytes ${HALF}-${SIZE - 1}/${SIZE + 1}`)],
    fails: /Content-Range must be/,
    left: HALF,
  },
  {
    title: "206 without Content-Range",
    partial: BODY.slice(0, HALF),
    answers: [(_, r) => void r.writeHead(206).end(BODY.slice(HALF))],
    fails: /answer has "none"/,
    left: HALF,
  },
  {
    title: "206 where nothing was asked for",
    answers: [partWith(`bytes ${HALF}-${SIZE - 1}/${SIZE}`)],
    fails: /Content-Range must be/,
    left: 0,
  },
  {
    title: "a whole wrong file under the part's name, then cut six times",
    partial: OTHER,
    answers: [1, 2, 3, 4, 5, 6].map((i) => cutAt(i * 1000)),
    ranges: ["", ...[1, 2, 3, 4, 5, 6].map((i) => `bytes=${i}000-`)],
  },
  {
    title: "no answer to the first request",
    answers: [silent],
    waits: [500],
    ranges: ["", ""],
  },
  {
    title: "silent after the headers",
    answers: [silentAt(0)],
    waits: [500],
    ranges: ["", ""],
  },
  {
    title: "silent in the middle",
    answers: [silentAt(HALF)],
    waits: [500],
    ranges: ["", `bytes=${HALF}-`],
  },
  {
    title: "no answer for ever",
    answers: Array(9).fill(silent),
    fails: /the server must answer: current one sent nothing for 0\.5 s$/,
    waits: [500, 1000, 2000, 4000],
  },
  {
    title: "silent for ever at one place",
    answers: [silentAt(HALF), ...Array(8).fill(partSilent)],
    fails: /current one sent nothing for 0\.5 s after 100000 of 200003 bytes$/,
    waits: [500, 500, 1000, 2000, 4000],
    left: HALF,
  },
  {
    title: "416, as if there were nothing more",
    partial: BODY.slice(0, HALF),
    answers: [status(416)],
    ranges: [`bytes=${HALF}-`, ""],
  },
  {
    title: "Content-Length too long",
    answers: [whole(new Uint8Array(SIZE + 1))],
    fails: /it must have 200003 bytes: current answer has "200004"/,
    left: 0,
  },
  {
    title: "Content-Length too short",
    answers: [whole(BODY.slice(0, HALF))],
    fails: /it must have 200003 bytes: current answer has "100000"/,
    left: 0,
  },
  {
    title: "another page of another length keeps the part",
    partial: BODY.slice(0, HALF),
    answers: [whole(new Uint8Array(100))],
    fails: /it must have 200003 bytes/,
    left: HALF,
  },
  {
    title: "no Content-Length and a byte too many",
    answers: [(_, r) => {
      r.write(BODY);
      r.end("!");
    }],
    fails: /current body is longer/,
  },
  {
    title: "no Content-Length and ends early",
    answers: [(_, r) => {
      r.write(BODY.slice(0, HALF));
      r.end();
    }],
    ranges: ["", `bytes=${HALF}-`],
  },
  {
    title: "one bit flipped",
    answers: [whole(flipped)],
    fails: /its sha256 must be .*; nothing of it was kept/,
  },
  {
    title: "gzip that nobody asked for",
    answers: [gzip, gzip],
    fails: /without compression|must have|longer/,
  },
  {
    title: "500, 503, then good",
    answers: [status(500), status(503)],
    waits: [500, 1000],
  },
  {
    title: "500 for ever",
    answers: Array(9).fill(status(500)),
    fails: /current answer is 500/,
    waits: [500, 1000, 2000, 4000],
  },
  {
    title: "429 with Retry-After in seconds",
    answers: [status(429, { "retry-after": "7" })],
    waits: [7000],
  },
  {
    title: "429 with a Retry-After of an hour waits a minute",
    answers: [status(429, { "retry-after": "3600" })],
    waits: [60_000],
  },
  {
    title: "429 with a Retry-After of words",
    answers: [status(429, { "retry-after": "soon" })],
    waits: [500],
  },
  {
    title: "401",
    answers: [status(401)],
    fails: /current answer is 401; .*set HF_TOKEN/,
    waits: [],
  },
  {
    title: "403 of a gated repository",
    answers: [status(403, { "x-error-code": "GatedRepo" })],
    fails: /403 \(GatedRepo\); accept its terms/,
    waits: [],
  },
  {
    title: "404",
    answers: [status(404, { "x-error-code": "EntryNotFound" })],
    fails: /404 \(EntryNotFound\)/,
    waits: [],
  },
  {
    title: "400",
    answers: [status(400)],
    fails: /current answer is 400/,
    waits: [],
  },
  {
    title: "a redirect to itself",
    answers: Array(9).fill(status(302, { location: "/file" })),
    fails: /after 5 redirects/,
    waits: [],
  },
  {
    title: "a redirect to a file of this machine",
    answers: [status(302, { location: "file:///etc/passwd" })],
    fails: /current redirect is to file:/,
    waits: [],
  },
];

let ran = 0;
after(() =>
  console.log(
    `${ran} of ${CASES.length} cut-and-resume and corruption cases held`,
  )
);

for (const { title, partial, answers, fails, waits, ranges, left } of CASES) {
  test(`download() ${fails ? "refuses" : "gets the file"}: ${title}`, async () => {
    const queue = [...answers];
    await using server = await serve((q, r) => (queue.shift() ?? good)(q, r));
    await using folder = await tempFolder(
      partial ? { "blob.partial": partial } : {},
    );
    const path = join(folder.path, "blob");
    const slept: number[] = [];
    const run = download(
      new URL(`${server.url}/file`),
      path,
      { size: SIZE, hash: { kind: "sha256", hex: HASH } },
      {
        sleep: (ms) => (slept.push(ms), Promise.resolve()),
        // A busy machine may be silent for a while itself.
        idleMs: /^(silent|no answer)/.test(title) ? 500 : undefined,
      },
    );
    if (fails) {
      await assert.rejects(run, (error: Error) => {
        assert.ok(error instanceof WeightsError, String(error));
        assert.match(error.message, /^Cannot /);
        assert.match(error.message, fails);
        return true;
      });
      const names = await readdir(folder.path);
      assert.ok(!names.includes("blob"), "no file under its name");
      if (left !== undefined) {
        const kept = await readFile(`${path}.partial`);
        assert.equal(kept.length, left);
        assert.ok(kept.equals(BODY.subarray(0, left)));
      }
    } else {
      await run;
      assert.ok((await readFile(path)).equals(BODY), "the file is right");
      assert.deepEqual(await readdir(folder.path), ["blob"]);
    }
    if (waits) assert.deepEqual(slept, waits);
    assert.ok(slept.filter((ms) => ms <= 8000).length < 30, "it gives up");
    if (ranges) {
      assert.deepEqual(server.log.map((l) => l.split(" ")[1]), ranges);
    }
    ran++;
  });
}
test("download() sends its headers to the first host and to no other", async () => {
  const seen: (string | undefined)[] = [];
  await using other = await serve((q, r) => {
    seen.push(q.headers.authorization);
    good(q, r);
  });
  await using first = await serve((q, r) => {
    seen.push(q.headers.authorization);
    r.writeHead(302, { location: `${other.url}/there` }).end();
  });
  await using folder = await tempFolder({});
  await download(
    new URL(`${first.url}/file`),
    join(folder.path, "blob"),
    { size: SIZE, hash: { kind: "sha256", hex: HASH } },
    { headers: { authorization: "Bearer secret" } },
  );
  assert.deepEqual(seen, ["Bearer secret", undefined]);
});

test("download() says 404 with a class of its own", async () => {
  await using server = await serve(status(404));
  await using folder = await tempFolder({});
  await assert.rejects(
    download(new URL(server.url), join(folder.path, "x"), {
      size: 1,
      hash: undefined,
    }),
    MissingFileError,
  );
});

test("download() without a hash never joins parts of two requests", async () => {
  const queue = [cutAt(HALF, OTHER)];
  await using server = await serve((q, r) => (queue.shift() ?? good)(q, r));
  await using folder = await tempFolder({ "blob.partial": OTHER.slice(0, 50) });
  const path = join(folder.path, "blob");
  await download(new URL(server.url), path, { size: SIZE, hash: undefined }, {
    sleep: () => Promise.resolve(),
  });
  assert.ok((await readFile(path)).equals(BODY));
  assert.deepEqual(server.log, ["/ ", "/ "]);
});

test("download() gets an empty file", async () => {
  await using server = await serve(whole(new Uint8Array(0)));
  await using folder = await tempFolder({});
  const path = join(folder.path, "blob");
  const hex = createHash("sha1").update("blob 0\0").digest("hex");
  await download(new URL(server.url), path, {
    size: 0,
    hash: { kind: "git", hex },
  });
  assert.equal((await readFile(path)).length, 0);
});

test("download() stops when told and leaves what it has; the next run goes on", async () => {
  await using server = await serve((q, r) => {
    if (server.log.length > 1) return good(q, r);
    r.writeHead(200, { "content-length": SIZE });
    r.write(BODY.slice(0, HALF)); // and then nothing
  });
  await using folder = await tempFolder({});
  const path = join(folder.path, "blob");
  const expected = { size: SIZE, hash: { kind: "sha256", hex: HASH } } as const;
  const stop = new AbortController();
  await assert.rejects(
    download(new URL(server.url), path, expected, {
      signal: stop.signal,
      onProgress: (done) => done === HALF && stop.abort(),
    }),
    { name: "AbortError" },
  );
  assert.deepEqual(await readdir(folder.path), ["blob.partial"]);
  await download(new URL(server.url), path, expected);
  assert.deepEqual(server.log, ["/ ", `/ bytes=${HALF}-`]);
  assert.ok((await readFile(path)).equals(BODY));
});

test("download() stops when told while it hashes what is there", async () => {
  const body = new Uint8Array(10 * 2 ** 20); // three reads
  await using server = await serve((_, r) => void r.end(body));
  await using folder = await tempFolder({ "blob.partial": body });
  const hex = createHash("sha256").update(body).digest("hex");
  const stop = new AbortController();
  let looks = 0;
  stop.signal.throwIfAborted = () => { // told between the first and the second read
    if (++looks === 3) stop.abort();
    AbortSignal.prototype.throwIfAborted.call(stop.signal);
  };
  await assert.rejects(
    download(new URL(server.url), join(folder.path, "blob"), {
      size: body.length,
      hash: { kind: "sha256", hex },
    }, { signal: stop.signal }),
    { name: "AbortError" },
  );
  assert.deepEqual(await readdir(folder.path), ["blob.partial"]);
});

test("download() says where it cannot write", async () => {
  await using server = await serve(good);
  await using folder = await tempFolder({});
  await writeFile(join(folder.path, "file"), "");
  await assert.rejects(
    download(new URL(server.url), join(folder.path, "file", "blob"), {
      size: SIZE,
      hash: undefined,
    }),
    { name: "WeightsError", message: /^Cannot write .*there must be room/ },
  );
});
