"""Facts about first-generation Gaudi under SynapseAI 1.14.0, each with its source.

Sources:
  [guide]   Habana documentation, TensorFlow user guide: supported data types, static shapes, CPU fallback.
  [ops]     Habana documentation, TensorFlow operators.
  [models]  HabanaAI/Model-References, TensorFlow/common/bf16_config/full.json: ops that the bridge converts
            to bfloat16 on the card, hence has kernels for.
  [tpc]     Habana TPC user guide: a kernel's tensors have at most five dimensions.
  [aws]     AWS Compute Blog, "Amazon EC2 DL1 instances Deep Dive": 32 GB HBM2 and 700 Gb/s of card-to-card
            links a card, 4 × 100 Gb/s a host, 96 vCPUs; AWS's price at launch.
  [habana]  Habana's published ResNet-50 figures: 1,690 images/s on one card, 12,950 on eight.
"""

from __future__ import annotations

# bfloat16 matrix arithmetic, multiplications and additions counted apart; bytes a second. [guide], [habana]
PEAK_FLOPS = 60e12
MEMORY_BYTES = 32e9
MEMORY_BANDWIDTH = 900e9
# ResNet-50 at 224² takes 4.1 G multiply-adds forward; training three times that: 1,690 images/s are 41.6
# TFLOP/s, 69 % of the peak, with everything tuned. A model that nobody tuned gets less.
PUBLISHED_UTILIZATION = 1690 * 3 * 2 * 4.1e9 / PEAK_FLOPS
DEFAULT_UTILIZATION = 0.4
# Bits a second: a card to the other seven, and a host to others. [aws]
CARD_LINK_BITS = 700e9
HOST_LINK_BITS = 400e9
CARDS_PER_HOST = 8
VCPUS = 96
# dl1.24xlarge on demand, us-east-1, as announced in October 2021; ask AWS for today's. [aws]
DOLLARS_PER_HOUR = 13.11
MAXIMUM_RANK = 5  # [tpc]
# The matrix engine works on tiles of 128 bfloat16 values; 64 half fill one. [guide]
CHANNEL_MULTIPLES = (128, 64)
# What a card computes in. Others are fetched to the host and back, in every step. [guide]
COMPUTE_DTYPES = ("float32", "bfloat16", "int32", "int8", "bool")

# Kernels for sure: [models] lists them for conversion.
_CONVERTED = """
  Abs Add AddN AddV2 ArgMax ArgMin BatchMatMul BatchMatMulV2 BiasAdd BiasAddGrad Conv2D Conv2DBackpropFilter
  Conv2DBackpropInput Cumprod Cumsum DepthwiseConv2dNative DepthwiseConv2dNativeBackpropFilter
  DepthwiseConv2dNativeBackpropInput DynamicStitch Equal EuclideanNorm Exp ExpandDims Fill FloorDiv
  FusedBatchNormGradV2 FusedBatchNormGradV3 FusedBatchNormV2 FusedBatchNormV3 GatherNd GatherV2 Greater
  GreaterEqual HorovodAllgather HorovodAllreduce HorovodBroadcast Identity IdentityN IsFinite L2Loss Less
  LessEqual Log Log1p LogSoftmax MatMul MatrixBandPart MaxPool MaxPoolGrad MaxPoolGradV2 MaxPoolV2 Maximum
  Minimum Mul Neg NotEqual Pack Pad PadV2 RandomStandardNormal RandomUniform Rank RealDiv Reciprocal Relu
  Relu6 Relu6Grad ReluGrad Reshape ResizeNearestNeighbor ResizeNearestNeighborGrad Round Rsqrt RsqrtGrad
  Select SelectV2 Shape ShapeN Sigmoid SigmoidGrad Sign Size Slice Snapshot Softmax
  SoftmaxCrossEntropyWithLogits SparseSoftmaxCrossEntropyWithLogits Split SplitV Sqrt Square
  SquaredDifference Squeeze StridedSlice StridedSliceGrad Sub Tanh TanhGrad TensorScatterUpdate Tile
  Transpose Unpack ZerosLike
"""
# The first letters of [ops], as far as our copy of it goes, and what every training step of
# Model-References contains around its layers: reductions, casts, variables, optimizers, control flow; average
# pooling from its densenet_keras.
_ALSO_USED = """
  Acos Acosh All Any Assert AssignAddVariableOp AssignSubVariableOp AssignVariableOp AvgPool AvgPoolGrad
  BroadcastGradientArgs
  BroadcastTo Cast ClipByValue ConcatOffset ConcatV2 Const DepthToSpace DivNoNan Elu EluGrad Floor FloorMod
  If InvertPermutation LeakyRelu LeakyReluGrad LogicalAnd LogicalNot LogicalOr Max Mean Min MirrorPad NoOp
  OneHot OnesLike PartitionedCall Placeholder Pow PreventGradient Prod Range ReadVariableOp
  ResourceApplyAdam ResourceApplyGradientDescent ResourceApplyKerasMomentum ResourceApplyMomentum
  ResourceGather Softplus SoftplusGrad SpaceToDepth SqrtGrad StatefulPartitionedCall StatelessIf
  StatelessWhile StopGradient Sum TopKV2 UnsortedSegmentSum VarIsInitializedOp While Xdivy
"""
SUPPORTED_OPS = frozenset((_CONVERTED + _ALSO_USED).split())
# Never on a card: strings, files, Python, image codecs, suppression, shapes that the data decide.
_HOST_ONLY = """
  AsString CombinedNonMaxSuppression CropAndResize DecodeAndCropJpeg DecodeBmp DecodeJpeg DecodePng
  EagerPyFunc EncodeJpeg EncodePng ExtractJpegShape GenerateBoundingBoxProposals IteratorGetNext
  NonMaxSuppression NonMaxSuppressionV2 NonMaxSuppressionV3 NonMaxSuppressionV4 NonMaxSuppressionV5
  ParseExampleV2 ParseSingleExample PrintV2 PyFunc PyFuncStateless ReadFile StringFormat StringJoin
  StringToHashBucketFast WriteFile WriteImageSummary WriteScalarSummary WriteSummary
"""
HOST_ONLY_OPS = frozenset(_HOST_ONLY.split())
# Their answer's shape depends on values: a graph compiled for one shape does not fit the next.
DATA_DEPENDENT_OPS = frozenset(
    ("Where", "Unique", "UniqueV2", "UniqueWithCounts", "BooleanMask", "DynamicPartition", "ListDiff")
)
