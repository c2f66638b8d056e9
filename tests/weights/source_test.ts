import { strict as assert } from "node:assert";
import { open } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { pathToFileURL } from "node:url";
import { MissingFileError, WeightsError } from "../../weights/errors.ts";
import { openHttp } from "../../weights/http_source.ts";
import { joinLocation, openSource, readText } from "../../weights/source.ts";
import { type Handler, sendRange, serve } from "./http_server.ts";
import { tempFolder } from "./temp_folder.ts";

if ("Deno" in globalThis) Deno.test.sanitizer({ ops: true, resources: true });

const BODY = Uint8Array.from(
  { length: 300_000 },
  (_, i) => (i * 7 + (i >> 8)) % 251,
);
const HEAD = 128 * 1024; // what the first request asks for

function same(got: Uint8Array, offset: number, length: number): void {
  assert.equal(got.length, length);
  assert.equal(got.byteOffset, 0);
  assert.equal(got.buffer.byteLength, length);
  assert.ok(got.every((byte, i) => byte === BODY[offset + i]));
}

test("openSource() reads ranges of a path and of a file URL", async () => {
  await using folder = await tempFolder({ "a b#%.bin": BODY });
  const path = join(folder.path, "a b#%.bin");
  for (
    const location of [path, pathToFileURL(path), pathToFileURL(path).href]
  ) {
    await using source = await openSource(location);
    assert.equal(source.size, BODY.length);
    for (
      const [offset, length] of [[0, 1], [0, BODY.length], [299_999, 1], [
        300_000,
        0,
      ]] as const
    ) {
      same(await source.read(offset, length), offset, length);
    }
    const parts = await Promise.all([source.read(5, 10), source.read(100, 10)]);
    same(parts[0], 5, 10);
    same(parts[1], 100, 10);
    for (
      const [offset, length] of [[0, 300_001], [-1, 1], [0, -1], [0.5, 1], [
        NaN,
        1,
      ]] as const
    ) {
      await assert.rejects(source.read(offset, length), RangeError);
    }
  }
});

test("openSource() names a file that is missing or is a folder", async () => {
  await using folder = await tempFolder({ "file": "x" });
  for (const name of ["none", "none/deeper", "file/deeper"]) {
    await assert.rejects(
      openSource(join(folder.path, name)),
      (error: unknown) => {
        assert.ok(error instanceof MissingFileError);
        return error.message.includes(name) && error.cause !== undefined;
      },
    );
  }
  await assert.rejects(
    openSource(folder.path),
    /must be a file: current folder/,
  );
});

test("openSource() refuses other schemes", async () => {
  for (
    const location of [
      "ftp://host/file",
      "hf://model",
      new URL("data:,x"),
      "http://",
    ]
  ) {
    await assert.rejects(openSource(location), WeightsError);
  }
});

test("ByteSource.read() throws when the file was cut after opening", async () => {
  await using folder = await tempFolder({ "a.bin": BODY });
  await using source = await openSource(join(folder.path, "a.bin"));
  const handle = await open(join(folder.path, "a.bin"), "r+");
  await handle.truncate(1000);
  await handle.close();
  same(await source.read(0, 1000), 0, 1000);
  await assert.rejects(
    source.read(900, 200),
    /200 bytes must follow byte 900.*ends after 100/,
  );
});

test("ByteSource.read() throws after close and after abort", async () => {
  await using folder = await tempFolder({ "a.bin": BODY });
  const source = await openSource(join(folder.path, "a.bin"));
  const signal = AbortSignal.abort(new Error("stop"));
  await assert.rejects(source.read(0, 1, { signal }), /^Error: stop$/);
  await assert.rejects(
    openSource(join(folder.path, "a.bin"), { signal }),
    /^Error: stop$/,
  );
  await source.close();
  await source.close();
  await assert.rejects(source.read(0, 1), /must be open/);
});

test("openSource() reads ranges over HTTP and asks for no more", async () => {
  await using server = await serve(sendRange(BODY));
  await using source = await openSource(`${server.url}/unet.bin?token=secret`);
  assert.equal(source.size, BODY.length);
  assert.equal(source.name, `${server.url}/unet.bin`);
  same(await source.read(8, 1000), 8, 1000); // from the first answer
  same(await source.read(HEAD - 1, 2), HEAD - 1, 2);
  same(await source.read(299_990, 10), 299_990, 10);
  same(await source.read(300_000, 0), 300_000, 0);
  const path = "/unet.bin?token=secret";
  assert.deepEqual(server.log, [
    `${path} bytes=0-${HEAD - 1}`,
    `${path} bytes=${HEAD - 1}-${HEAD}`,
    `${path} bytes=299990-299999`,
  ]);
  await assert.rejects(source.read(299_999, 2), RangeError);
});

test("openSource() opens an empty resource", async () => {
  await using server = await serve(sendRange(new Uint8Array(0)));
  await using source = await openSource(server.url);
  assert.equal(source.size, 0);
});

test("openSource() keeps a small body when the server ignores Range", async () => {
  await using server = await serve((_, response) =>
    response.writeHead(200).end(BODY)
  );
  await using source = await openSource(new URL(server.url));
  assert.equal(source.size, BODY.length);
  same(await source.read(200_000, 100_000), 200_000, 100_000);
  assert.equal(server.log.length, 1);
});

test("openSource() refuses a large body when the server ignores Range", async () => {
  for (const length of [64 * 2 ** 20 + 1, undefined]) {
    await using server = await serve((_, response) => {
      response.writeHead(
        200,
        length === undefined ? {} : { "content-length": length },
      );
      const block = new Uint8Array(8 * 2 ** 20);
      for (let i = 0; i < (length === undefined ? 9 : 1); i++) {
        response.write(block);
      }
      if (length === undefined) response.end();
    });
    await assert.rejects(
      openSource(server.url),
      /must honour Range for files over 67108864/,
    );
  }
});

test("ByteSource.read() takes a whole body that comes after a range", async () => {
  let requests = 0;
  await using server = await serve((request, response) => {
    if (requests++ === 0) sendRange(BODY)(request, response);
    else response.writeHead(200).end(BODY);
  });
  await using source = await openSource(server.url);
  same(await source.read(200_000, 5), 200_000, 5);
  same(await source.read(250_000, 5), 250_000, 5);
  assert.equal(server.log.length, 2);
});

function answer(
  status: number,
  headers: Record<string, string | number>,
  size: number,
): Handler {
  return (_, response) =>
    response.writeHead(status, headers).end(BODY.slice(0, size));
}

/** Sends less than Content-Length says, then cuts the connection. */
function cut(
  status: number,
  headers: Record<string, string | number>,
): Handler {
  return (_, response) => {
    response.writeHead(status, { ...headers, "content-length": HEAD });
    response.write(
      BODY.slice(0, 1000),
      () => setTimeout(() => response.destroy(), 20),
    );
  };
}

const RANGE = `bytes 0-${HEAD - 1}/300000`;
const FAULTS: [name: string, handler: Handler, message: RegExp][] = [
  ["404", answer(404, {}, 5), /must answer 206 or 200: current answer is 404/],
  ["410", answer(410, {}, 5), /current answer is 410/],
  ["500", answer(500, {}, 5), /current answer is 500/],
  ["403", answer(403, {}, 5), /current answer is 403/],
  [
    "206 without Content-Range",
    answer(206, {}, HEAD),
    /current answer has none/,
  ],
  [
    "another unit",
    answer(206, { "content-range": "rows 0-9/10" }, 10),
    /Content-Range must be/,
  ],
  [
    "unknown size",
    answer(206, { "content-range": "bytes 0-9/*" }, 10),
    /Content-Range must be/,
  ],
  [
    "another start",
    answer(206, { "content-range": "bytes 1-10/300000" }, 10),
    /Content-Range/,
  ],
  [
    "a shorter range",
    answer(206, { "content-range": "bytes 0-9/300000" }, 10),
    /Content-Range/,
  ],
  [
    "a range past its size",
    answer(206, { "content-range": "bytes 0-9/5" }, 10),
    /Content-Range/,
  ],
  [
    "a huge size",
    answer(206, { "content-range": `bytes 0-9/${"9".repeat(30)}` }, 10),
    /Range must/,
  ],
  [
    "less than the range",
    answer(206, { "content-range": RANGE }, 1000),
    /ends after 1000|whole/,
  ],
  [
    "more than the range",
    answer(206, { "content-range": RANGE }, HEAD + 1),
    /body is longer/,
  ],
  [
    "a compressed range",
    answer(
      206,
      { "content-range": RANGE, "content-encoding": "x-unknown" },
      HEAD,
    ),
    /without compression/,
  ],
  [
    "a cut range",
    cut(206, { "content-range": RANGE }),
    /whole answer|ends after/,
  ],
  ["a cut body", cut(200, {}), /whole answer|ends after/],
  [
    "416",
    answer(416, { "content-range": "bytes */10" }, 0),
    /Content-Range must be/,
  ],
];

for (const [name, handler, message] of FAULTS) {
  test(`openSource() throws for an answer with ${name}`, async () => {
    await using server = await serve(handler);
    await assert.rejects(
      openSource(`${server.url}/file?key=secret`),
      (error: unknown) => {
        assert.ok(error instanceof WeightsError, String(error));
        assert.equal(
          error instanceof MissingFileError,
          ["404", "410"].includes(name),
        );
        assert.match(error.message, message);
        return error.message.includes(`${server.url}/file: `) &&
          !error.message.includes("secret");
      },
    );
  });
}

const LATER: [name: string, handler: Handler, message: RegExp][] = [
  [
    "another range",
    answer(206, { "content-range": "bytes 0-9/300000" }, 10),
    /must be "bytes 2/,
  ],
  [
    "another size",
    answer(206, { "content-range": "bytes 200000-200009/9999999" }, 10),
    /must be/,
  ],
  [
    "another ETag",
    answer(206, {
      "content-range": "bytes 200000-200009/300000",
      "etag": '"new"',
    }, 10),
    /must not change while it is read/,
  ],
  [
    "a whole body of another size",
    answer(200, {}, 10),
    /must not change while it is read/,
  ],
  ["416", answer(416, {}, 0), /must be "bytes 200000-200009\/300000"/],
  ["404", answer(404, {}, 0), /answer is 404/],
  [
    "too few bytes",
    answer(206, { "content-range": "bytes 200000-200009/300000" }, 9),
    /10 bytes must follow byte 200000/,
  ],
];

for (const [name, handler, message] of LATER) {
  test(`ByteSource.read() throws for a later answer with ${name}`, async () => {
    let requests = 0;
    await using server = await serve((request, response) => {
      response.setHeader("etag", '"old"');
      (requests++ === 0 ? sendRange(BODY) : handler)(request, response);
    });
    await using source = await openSource(server.url);
    await assert.rejects(source.read(200_000, 10), (error: unknown) => {
      assert.ok(error instanceof WeightsError, String(error));
      assert.match(error.message, message);
      return true;
    });
  });
}

test("openSource() throws when nobody listens", async () => {
  const server = await serve(sendRange(BODY));
  await server[Symbol.asyncDispose]();
  await assert.rejects(openSource(server.url), WeightsError);
});

test("openSource() and read() stop on abort while the server waits", async () => {
  let requests = 0;
  await using server = await serve((request, response) => {
    if (request.url === "/file" && requests++ === 0) {
      sendRange(BODY)(request, response);
    }
  });
  await using source = await openSource(`${server.url}/file`);
  for (
    const wait of [
      (signal: AbortSignal) => openSource(`${server.url}/other`, { signal }),
      (signal: AbortSignal) => source.read(200_000, 5, { signal }),
    ]
  ) {
    const controller = new AbortController();
    setTimeout(() => controller.abort(new Error("stop")), 20);
    await assert.rejects(wait(controller.signal), /^Error: stop$/);
  }
});

test("openHttp() and read() give up on a server that sends nothing, and say for how long", async () => {
  const part =
    (first: number, length: number, send: number): Handler => (_, response) => {
      response.writeHead(206, {
        "content-range": `bytes ${first}-${first + length - 1}/${BODY.length}`,
        "content-length": length,
      });
      response.flushHeaders();
      response.write(BODY.slice(first, first + send));
    };
  const handlers: Record<string, Handler> = {
    "/silent": () => {},
    "/stalled": part(0, HEAD, 1000),
    "/later": (q, r) =>
      (q.headers.range!.startsWith("bytes=0-")
        ? sendRange(BODY)
        : part(200_000, 10, 5))(q, r),
  };
  await using server = await serve((q, r) => handlers[q.url!]!(q, r));
  const open = (path: string) =>
    openHttp(new URL(server.url + path), { idleMs: 500 });
  const refused = {
    name: "WeightsError",
    message:
      /^Cannot read http.*: the server must send the whole answer: current one sent nothing for 0\.5 s$/,
  };
  await assert.rejects(open("/silent"), refused);
  await assert.rejects(open("/stalled"), refused);
  await using source = await open("/later");
  await assert.rejects(source.read(200_000, 10), refused);
  same(await source.read(0, 10), 0, 10);
});

test("readText() reads UTF-8 and refuses the rest", async () => {
  await using folder = await tempFolder({
    "good": "\ufeffé 😀\n",
    "bad": new Uint8Array([0x61, 0xff]),
    "empty": "",
  });
  assert.equal(await readText(join(folder.path, "good")), "é 😀\n");
  assert.equal(await readText(join(folder.path, "empty")), "");
  await assert.rejects(readText(join(folder.path, "bad")), /must be UTF-8/);
  assert.equal(
    await readText(join(folder.path, "good"), { maxBytes: 11 }),
    "é 😀\n",
  );
  await assert.rejects(
    readText(join(folder.path, "good"), { maxBytes: 10 }),
    /at most 10 bytes/,
  );
});

test("joinLocation() joins paths and URLs and stays inside the folder", () => {
  assert.equal(
    joinLocation("/models/sd15", "unet/config.json"),
    join("/models/sd15/unet/config.json"),
  );
  assert.equal(joinLocation("models/", "a.txt"), join("models/a.txt"));
  assert.equal(
    joinLocation("https://host/m", "unet/a b#.json"),
    "https://host/m/unet/a%20b%23.json",
  );
  assert.equal(
    joinLocation(new URL("https://host/m/?k=1#x"), "a"),
    "https://host/m/a?k=1",
  );
  assert.equal(joinLocation("file:///m", "a"), "file:///m/a");
  assert.equal(joinLocation("m", "..a/b..c"), join("m/..a/b..c"));
  for (
    const bad of [
      "",
      "/a",
      "a/",
      "a//b",
      "..",
      "a/../b",
      ".",
      "a\\b",
      "C:/a",
      "a\0b",
    ]
  ) {
    assert.throws(() => joinLocation("m", bad), RangeError);
  }
});
