import { strict as assert } from "node:assert";
import { test } from "node:test";
import { EMBEDDED_MODELS, embeddedModel } from "../../weights/embedded.ts";
import { openFolder } from "../../weights/folder.ts";

test("embeddedModel() gives folders that open and hold the known number of tensors", async () => {
  assert.deepEqual([...EMBEDDED_MODELS], ["tiny-scenes"]);
  const url = embeddedModel("tiny-scenes");
  assert.ok(url !== undefined && url.href.endsWith("/weights/tiny-scenes/"));
  await using folder = await openFolder(url);
  assert.equal(folder.name, "tiny-scenes");
  // counted in the files by another reader
  for (
    const [name, count] of [["unet", 326], ["vae", 152], [
      "text_encoder",
      36,
    ]] as const
  ) {
    const component = await folder.component(name);
    assert.equal(component.tensors.size, count);
    assert.ok(Object.keys(component.config).length > 0);
  }
  const unet = await folder.component("unet");
  assert.ok((await unet.read("conv_in.weight")).every(Number.isFinite));
});

test("embeddedModel() is undefined for other names", () => {
  for (const name of ["", "sd15", "../tiny-scenes", "toString"]) {
    assert.equal(embeddedModel(name), undefined);
  }
});
