/**
 * Puts things where you say: layout guidance for stock text-to-image diffusion models, on WebGPU.
 *
 * `open` a model and `generate` from a prompt with boxes. Below that: layouts, tokenizer, energies,
 * guidance, sampler, networks, kernels and tensors.
 *
 * @example
 * ```ts
 * import { open } from "./mod.ts";
 *
 * await using model = await open("tiny-scenes");
 * const { png, report } = await model.generate({
 *   prompt: "a red car and a blue house on grass",
 *   regions: [
 *     { phrase: "red car", boxes: [[0.06, 0.52, 0.54, 0.91]] },
 *     { phrase: "blue house", boxes: [[0.56, 0.13, 0.95, 0.74]] },
 *   ],
 *   seed: 7,
 *   steps: 2, // leave out for the model's own 20
 *   guidance: { steps: 1, iterations: 2 },
 * });
 * if (png.length < 1000 || report.regions.length !== 2) throw new Error("no picture");
 * ```
 *
 * @module
 */

// The main job
export {
  type CheckedRequest,
  checkForModel,
  memoryLimits,
  type MemoryOptions,
  planMemory,
} from "./pipeline/model_request.ts";
export {
  Model,
  type ModelParts,
  open,
  openBackend,
  type OpenOptions,
} from "./pipeline/model.ts";
export {
  cachedLocation,
  describeModel,
  type FileOptions,
  type ModelFacts,
} from "./pipeline/model_facts.ts";
export {
  type MemoryChoice,
  type MemoryEstimate,
  type MemoryLimits,
  type PlannedModel,
} from "./pipeline/memory.ts";
export {
  generate,
  type GenerateOptions,
  type GenerateReport,
  type GenerateResult,
  matchRegions,
  type Networks,
  paint,
  type PhaseMemory,
  type RunMemory,
  type StepInfo,
} from "./pipeline/generate.ts";
export type {
  AttentionMap,
  AttentionStep,
  SiteMaps,
} from "./pipeline/attention_maps.ts";
export {
  type AttentionFrame,
  attentionPicture,
  attentionSheet,
} from "./pipeline/attention_picture.ts";
export { energySvg } from "./pipeline/energy_svg.ts";
export {
  BEST_OF_KEY,
  type Candidate,
  candidateSeeds,
  layoutScore,
  searchedRequest,
} from "./pipeline/best_of.ts";
export { decodeLatent } from "./pipeline/decode.ts";
export { metadata, promptOf, REQUEST_KEY } from "./pipeline/metadata.ts";
export {
  checkPreset,
  checkRequest,
  type FullRequest,
  type GenerateRequest,
  PAPER,
  type Preset,
  type PresetName,
  type RequestLimits,
} from "./pipeline/request.ts";
export { nearest } from "./pipeline/nearest.ts";
export {
  generateInWorkers,
  type WorkerOptions,
  type WorkerStep,
} from "./pipeline/workers.ts";

// Layouts and prompts
export {
  type Box,
  type BoxedRegion,
  cellRange,
  type CheckedRegion,
  checkLayout,
  logPrior,
  parseBoxFlag,
  type PriorOptions,
  rasterize,
  rasterizeUnion,
  type RasterMode,
  type Region,
} from "./pipeline/layout.ts";
export {
  checkMask,
  type Mask,
  maskBox,
  maskPixels,
  type PackedMask,
  rasterizeMask,
} from "./pipeline/mask.ts";
export { type Shape, shapeBoxes } from "./pipeline/shape.ts";
export {
  type Piece,
  Tokenizer,
  type TokenizerFiles,
  type Tokens,
} from "./pipeline/tokenize.ts";
export {
  matchPhrase,
  type PhraseMatch,
  type PhraseSelector,
  type TokenRow,
  tokenTable,
} from "./pipeline/phrase.ts";

// Parts from ONNX exports
export { ONNX_PARTS, type OnnxPart } from "./pipeline/load_parts.ts";
export {
  type OnnxDecoder,
  type OnnxTextEncoder,
} from "./pipeline/onnx_parts.ts";
export {
  hasOnnx,
  type OnnxArray,
  OnnxNetwork,
} from "./pipeline/onnx_session.ts";

// Guidance and sampling
export {
  ENERGY_DEFAULTS,
  type EnergyOptions,
  type EvaluatedMap,
  LayoutEnergy,
  type LayoutReport,
  type LayoutTerms,
  type Subject,
  subjectEnergy,
} from "./pipeline/energy.ts";
export type {
  AttentionEdit,
  Energy,
  EnergyContext,
  EnergyReport,
  EvaluatedEnergy,
  ForwardEdit,
  GuidanceMethod,
  GuidancePoint,
  MethodSpec,
  UpdateContext,
  UpdateRule,
} from "./pipeline/guidance/method.ts";
export {
  checkGuidance,
  type FullGuidance,
  type GuidanceOptions,
  type GuidanceRequest,
  guidedPasses,
  methodNamed,
  methodNames,
  methodOf,
  type MethodPresets,
  registerMethod,
} from "./pipeline/guidance/methods.ts";
export {
  type Bounds,
  choice,
  flag,
  nameOrNumber,
  type Option,
  type OptionTable,
  orNone,
  pair,
  rasterChoice,
  real,
  siteChoice,
  whole,
} from "./pipeline/guidance/options.ts";
export {
  chosenSites,
  guidedSites,
  SITE_SETS,
  type SiteChoice,
  type SiteSet,
} from "./pipeline/guidance/sites.ts";
export {
  deviceEnergy,
  type DeviceEnergyOptions,
} from "./pipeline/guidance/device_energy.ts";
export { gradientStep } from "./pipeline/guidance/gradient_step.ts";
export {
  hostEnergy,
  type HostEnergyOptions,
  type HostLoss,
  type SiteMap,
  siteMean,
} from "./pipeline/guidance/maps/host_energy.ts";
export type { Grid, Mapped } from "./pipeline/guidance/maps/mapped.ts";
export { whileAbove } from "./pipeline/guidance/stop.ts";
export {
  ATTENTION_REFOCUSING,
  ATTENTION_REFOCUSING_DEFAULTS,
  type AttentionRefocusingOptions,
} from "./pipeline/guidance/attention_refocusing.ts";
export {
  BOXDIFF,
  BOXDIFF_DEFAULTS,
  type BoxDiffOptions,
} from "./pipeline/guidance/boxdiff.ts";
export { CSG, CSG_DEFAULTS, type CsgOptions } from "./pipeline/guidance/csg.ts";
export {
  LAYOUT_CONTROL,
  LAYOUT_CONTROL_DEFAULTS,
  type LayoutControlOptions,
} from "./pipeline/guidance/layout_control.ts";
export { RNB, RNB_DEFAULTS, type RnbOptions } from "./pipeline/guidance/rnb.ts";
export {
  WINWINLAY,
  winwinlay,
  WINWINLAY_DEFAULTS,
  type WinWinLayOptions,
} from "./pipeline/guidance/winwinlay.ts";
export { type NoiseSource, seededNoise } from "./pipeline/noise.ts";
export {
  type Guide,
  type InnerReport,
  sample,
  type SampledStep,
  type SampleOptions,
} from "./pipeline/sampler.ts";
export {
  alphasCumprod,
  type Prediction,
  type ScheduleConfig,
  scheduleConfig,
  type Spacing,
  SPACINGS,
} from "./pipeline/schedule_config.ts";
export {
  ddim,
  dpmSolver,
  euler,
  eulerAncestral,
  makeScheduler,
  type Scheduler,
  SCHEDULER_TITLES,
  type SchedulerName,
  SCHEDULERS,
  type SchedulerStep,
} from "./pipeline/scheduler.ts";

// Networks
export {
  type AddedChannels,
  type Conditioning,
  encodePrompt,
  type MicroConditioning,
  type PromptOptions,
  type TextStage,
} from "./pipeline/conditioning.ts";
export {
  encodePenultimate,
  encodeText,
  endOfText,
  loadTextEncoder,
  type TextConfig,
  textConfig,
  type TextEncoder,
  type TextLayer,
} from "./pipeline/text_encoder.ts";
export {
  loadUnet,
  type Stage,
  timestepWave,
  type Unet,
  unetForward,
  type UnetHooks,
} from "./pipeline/unet.ts";
export {
  type AttentionSite,
  attentionSites,
  type UnetConfig,
  unetConfig,
} from "./pipeline/unet_config.ts";
export {
  type EnergyGradient,
  energyGradient,
  type EnergyRequest,
  type GradientOptions,
  type GradientPass,
  gradientPass,
} from "./pipeline/unet_grad.ts";
export {
  type Coder,
  loadVae,
  type OnStage,
  type Vae,
  type VaeConfig,
  vaeConfig,
  vaeDecode,
  vaeEncode,
} from "./pipeline/vae.ts";
export type { Resnet } from "./pipeline/resnet.ts";
export type {
  Attention,
  KeysAndValues,
  PlainAttention,
  ProbeHooks,
  SelfAttention,
  TextContext,
  Transformer,
  TransformerBlock,
} from "./pipeline/transformer.ts";
export type { Affine, Layer } from "./pipeline/parameters.ts";
export type {
  LoadOptions,
  Scratch,
  WeightSource,
} from "./pipeline/weight_source.ts";

// Pictures
export {
  type DecodedPng,
  decodePng,
  encodePng,
  type EncodePngOptions,
  readPngText,
} from "./pipeline/png.ts";
export type { Colour } from "./pipeline/bitmap_font.ts";
export {
  drawBoxes,
  enlarge,
  type LabelledBox,
  type Picture,
  sideBySide,
} from "./pipeline/draw.ts";

// Scores of many pictures
export {
  Detector,
  type Found,
  type Sighting,
} from "./pipeline/evaluate/detector.ts";
export {
  scoreThings,
  type ThingScore,
  type WantedThing,
  wantedThings,
} from "./pipeline/evaluate/score.ts";
export {
  COCO_AREAS,
  CocoEvaluation,
  type CocoFound,
  type CocoImage,
  type CocoOptions,
  type CocoScores,
  type CocoTruth,
} from "./pipeline/evaluate/coco.ts";
export {
  type FeatureReference,
  FrechetReference,
} from "./pipeline/evaluate/frechet.ts";
export {
  type Metric,
  METRICS,
  type ScoredPicture,
  summarise,
  type Summary,
  type SummaryOptions,
  type VariantSummary,
} from "./pipeline/evaluate/summary.ts";
export type { Interval } from "./pipeline/evaluate/bootstrap.ts";
export {
  contactSheet,
  type SheetCell,
  type SheetRow,
} from "./pipeline/evaluate/contact_sheet.ts";
export {
  type Layout,
  randomLayouts,
} from "./pipeline/evaluate/random_layouts.ts";

// Weights
export { EMBEDDED_MODELS, embeddedModel } from "./weights/embedded.ts";
export {
  DeniedFileError,
  MissingFileError,
  WeightsError,
} from "./weights/errors.ts";
export type {
  Component,
  ComponentName,
  ComponentOptions,
  TensorFile,
} from "./weights/component.ts";
export type { Checkpoint } from "./weights/checkpoint.ts";
export { DiffusersFolder, openFolder } from "./weights/folder.ts";
export type { ConfigOverrides } from "./weights/ldm_configs.ts";
export type { LdmFamily } from "./weights/ldm_kinds.ts";
export type { LdmPrediction } from "./weights/ldm_prediction.ts";
export {
  type CheckpointOptions,
  openCheckpoint,
} from "./weights/open_checkpoint.ts";
export {
  openSingleFile,
  SingleFile,
  type SingleFileOptions,
} from "./weights/single_file.ts";
export type { JsonObject, JsonValue } from "./weights/strict_json.ts";
export {
  type Dtype,
  Safetensors,
  type TensorInfo,
} from "./weights/safetensors.ts";
export type { ReadOptions } from "./weights/byte_source.ts";
export { type ByteSource, openSource } from "./weights/source.ts";
export {
  type Lock,
  LockedError,
  lockHolder,
  takeLock,
} from "./weights/lock_file.ts";
export {
  type CachedFile,
  type CachedRevision,
  cachedSnapshot,
  hubCacheFolder,
  type HubName,
  listCache,
  parseHubName,
} from "./weights/hub_cache.ts";
export {
  type HubFile,
  type HubOptions,
  type HubRevision,
  hubRevision,
  pull,
  type Pulled,
  type PullOptions,
  type PullProgress,
} from "./weights/hub_client.ts";
export { type VerifiedFile, verifyRevision } from "./weights/hub_verify.ts";
export {
  download,
  type DownloadOptions,
  type Expected,
} from "./weights/download.ts";

// Backends, tensors and gradients
export {
  type AdapterInfo,
  type AdapterReport,
  describeAdapters,
  type DeviceChoice,
  type OpenedAdapter,
  type RuntimeName,
} from "./kernels/adapter.ts";
export {
  type Backend,
  type CopyRange,
  type Dispatch,
  type Floats,
  type Kernel,
  type KernelFamily,
  type MemoryUse,
  type Params,
  type PlannedKernel,
  type Recorder,
  type StageName,
  type StorageType,
  Tensor,
  type Vjp,
  type Work,
} from "./kernels/backend.ts";
export {
  chooseFamily,
  type ChosenFamily,
  KERNEL_CHOICES,
  type KernelChoice,
} from "./kernels/family.ts";
export { type MatrixUnits } from "./kernels/matrix_units.ts";
export { describeTiles, type TileTimes } from "./kernels/tile_times.ts";
export { type DeviceMemory, deviceMemory } from "./kernels/device_memory.ts";
export { Plan } from "./kernels/plan.ts";
export { Cpu } from "./kernels/cpu.ts";
export {
  DeviceLostError,
  DeviceMemoryError,
  NoDeviceError,
} from "./kernels/errors.ts";
export { Tape } from "./kernels/tape.ts";
export { WebGpu } from "./kernels/webgpu.ts";
export type { Activation } from "./kernels/activation.ts";
export { add, combine } from "./kernels/combine.ts";
export type { StepCoefficients } from "./kernels/guided_step.ts";
