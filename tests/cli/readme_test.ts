/** The README says what the command line says. */
import { strict as assert } from "node:assert";
import { readFile } from "node:fs/promises";
import { test } from "node:test";
import { run } from "./harness.ts";

test("the README lists the options of generate as its help does", async () => {
  const readme = await readFile(
    new URL("../../README.md", import.meta.url),
    "utf8",
  );
  const { out, err } = await run(["help", "generate"]);
  const help = [...out, ...err].join("\n");
  const options = help.slice(help.indexOf("What to paint:")).trim();
  assert.ok(options.length > 1000);
  assert.ok(readme.includes(options), "paste the new help into the README");
});
