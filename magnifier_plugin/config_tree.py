"""The configuration tree: torchreid's keys and this package's, each with an explanation.

"(ours)" marks keys that torchreid does not have. The systems' own sections are in
`config_systems.py`. `config_values.py` checks values; `config_stages.py` resolves stages.
"""

from yacs.config import CfgNode as Node

from magnifier_plugin.config_systems import add_systems


def default_config() -> Node:
    """The whole tree with default values: torchreid's, except for model, loss and layers."""
    cfg = Node()
    cfg.use_gpu = True  # use a GPU if there is one
    # Mixed precision: off; bf16 (or on); fp16, with a gradient scaler, for GPUs without bf16; auto:
    # bf16 if the device computes faster in it, else off (ours).
    cfg.amp = "auto"
    cfg.channels_last = "auto"  # memory format: on, off, auto (on where amp's auto is bf16) (ours)
    for add in (_model, _data, _train, _step, _ddp, _optimizers, _stages, _loss, _test):
        add(cfg)
    for add in (add_systems, _synthetic, _report):
        add(cfg)
    return cfg


def _model(cfg: Node) -> None:
    cfg.model = Node()
    cfg.model.name = "magnifiernet"  # -a/--arch; also dsa_reid and all models of torchreid
    cfg.model.pretrained = True  # start from ImageNet weights
    cfg.model.load_weights = ""  # checkpoint to load weights from, and nothing else
    # Checkpoint to resume from, at any stage. auto: the newest intact one in data.save_dir, or a
    # new run if there is none.
    cfg.model.resume = ""
    # File of ImageNet weights, or a checkpoint whose backbone is taken; "none": no weights; "":
    # $MAGNIFIER_BACKBONE_WEIGHTS, else a download (ours).
    cfg.model.backbone_weights = ""


def _data(cfg: Node) -> None:
    cfg.data = Node()
    cfg.data.type = "image"  # image only: video data sets have no label maps
    cfg.data.root = "reid-data"  # --root: folder of all data sets
    # -s: data sets to train on; shop=PATH names your own CSV or folder "shop" (ours).
    cfg.data.sources = ["market1501"]
    cfg.data.targets = ["market1501"]  # -t: data sets to test on
    cfg.data.workers = 4  # processes per data loader
    # Memory limit in GiB of a cache of decoded and resized, not yet augmented training images and
    # maps, shared by a process's workers; each torchrun process has its own. 0: no cache (ours).
    cfg.data.cache_gb = 0.0
    cfg.data.split_id = 0  # for data sets with several splits
    cfg.data.height = 256  # pixels
    cfg.data.width = 128  # pixels
    cfg.data.combineall = False  # train on query and gallery images too
    cfg.data.transforms = ["random_flip"]  # --transforms: torchreid's, and pad_crop
    cfg.data.k_tfm = 1  # augmented views per image; only 1 is supported
    cfg.data.norm_mean = [0.485, 0.456, 0.406]  # R, G, B in 0..1; ImageNet's
    cfg.data.norm_std = [0.229, 0.224, 0.225]
    cfg.data.save_dir = "log"  # folder for log, checkpoints, results and pictures

    cfg.market1501 = Node()
    cfg.market1501.use_500k_distractors = False  # add them to the gallery

    cfg.cuhk03 = Node()
    cfg.cuhk03.labeled_images = False  # labelled boxes instead of detected ones
    cfg.cuhk03.classic_split = False  # 1,367 / 100 identities instead of 767 / 700
    cfg.cuhk03.use_metric_cuhk03 = False  # single-gallery-shot metric of the classic split

    cfg.sampler = Node()
    cfg.sampler.train_sampler = "RandomSampler"  # triplet loss: RandomIdentitySampler
    cfg.sampler.num_instances = 4  # images per identity in a batch
    cfg.sampler.num_cams = 1  # cameras in a batch (RandomDomainSampler); 0: all
    cfg.sampler.num_datasets = 1  # data sets in a batch (RandomDatasetSampler); 0: all


def _train(cfg: Node) -> None:
    cfg.train = Node()
    cfg.train.optim = "adam"  # adam, amsgrad, sgd, rmsprop, radam
    cfg.train.lr = 0.0003
    cfg.train.weight_decay = 5e-4
    cfg.train.max_epoch = 60  # epochs; if there are stages, loading sets it to their sum
    # Factor for every stage's epochs (result at least 1), warm-up and steps; values typed on the
    # command line are not scaled. Loading applies it and resets it to 1, so that a saved
    # configuration reproduces its run (ours).
    cfg.train.scale = 1.0
    cfg.train.start_epoch = 0  # first epoch, from 0; model.resume overrides it
    cfg.train.batch_size = 32  # total over all processes
    cfg.train.fixbase_epoch = 0  # number of first epochs that train only open_layers
    cfg.train.open_layers = ["mask_module", "branches"]  # torchreid's models: ['classifier']
    cfg.train.staged_lr = False  # base_lr_mult × lr for all layers but new_layers
    cfg.train.new_layers = ["mask_module", "branches"]  # torchreid's models: ['classifier']
    cfg.train.base_lr_mult = 0.1
    cfg.train.lr_scheduler = "single_step"  # single_step, multi_step, cosine
    cfg.train.stepsize = [20]  # epochs; single_step: the period, multi_step: the steps
    cfg.train.gamma = 0.1  # factor of the learning rate at a step
    cfg.train.print_freq = 20  # batches between log lines
    cfg.train.seed = 1
    cfg.train.warmup_epoch = 0  # epochs of linear warm-up (ours)
    cfg.train.warmup_factor = 0.01  # factor of the learning rate in the first epoch (ours)
    cfg.train.checkpoint_freq = 1  # epochs between checkpoints during training (ours)
    # Also save at the end of an epoch once the last checkpoint is this many minutes old; 0: do not
    # (ours).
    cfg.train.checkpoint_minutes = 10.0
    # Epochs between checkpoints that are never removed; 0: keep only the last and the best (ours).
    cfg.train.keep_freq = 0
    # Use deterministic algorithms where torch has them; slower on a GPU (ours).
    cfg.train.deterministic = False


def _step(cfg: Node) -> None:
    # All of these are ours.
    cfg.train.compile = False  # compile with torch.compile; the first steps take minutes
    cfg.train.fused = "auto"  # fused optimiser: on, off, auto: on for adam, amsgrad, sgd
    cfg.train.clip_grad = 0.0  # largest norm of all gradients taken together; 0: no clipping
    # Batches of train.batch_size whose gradients are averaged for one step. Batch norm and
    # batch-hard mining see one batch at a time, so the triplet loss does not gain a larger batch.
    cfg.train.accumulate = 1
    # Decay of an exponential moving average of the weights, such as 0.999; the average is then
    # tested and saved. 0: no average.
    cfg.train.ema = 0.0


def _ddp(cfg: Node) -> None:
    # Options of training in several processes with torchrun (ours).
    cfg.ddp = Node()
    cfg.ddp.sync_bn = False  # batch norm over the whole batch, not each process's share
    # Compute triplet, mask and share-weighted losses over the whole batch, not as the mean over the
    # processes' shares.
    cfg.ddp.gather = False


def _optimizers(cfg: Node) -> None:
    cfg.sgd = Node()
    cfg.sgd.momentum = 0.9
    cfg.sgd.dampening = 0.0
    cfg.sgd.nesterov = False
    cfg.rmsprop = Node()
    cfg.rmsprop.alpha = 0.99
    cfg.adam = Node()
    cfg.adam.beta1 = 0.9
    cfg.adam.beta2 = 0.999


def _stages(cfg: Node) -> None:
    # One entry per stage, such as {max_epoch: 40, lr: 0.001, loss_weights: {sd: 0.002}} (ours). On
    # the command line: stages.2.lr 0.001, stages.2.loss_weights.sd 0.01. No entry: one stage with
    # the values of train.*.
    # An entry may override train's max_epoch, lr, lr_scheduler, stepsize, warmup_epoch,
    # warmup_factor, optim, weight_decay, staged_lr, new_layers and base_lr_mult, and may set
    #   loss_weights: weights of loss terms by name, at least 0; override the criterion's;
    #   optimizer: fresh (default), or keep, which continues the previous stage's optimiser and
    #     learning rate schedule; of the keys above, only max_epoch then has an effect.
    cfg.stages = []


def _loss(cfg: Node) -> None:
    cfg.loss = Node()
    cfg.loss.name = "magnifier"  # magnifier, dsa; torchreid's softmax, triplet
    cfg.loss.softmax = Node()
    cfg.loss.softmax.label_smooth = True  # label smoothing of 0.1
    cfg.loss.triplet = Node()
    cfg.loss.triplet.margin = 0.3  # in units of Euclidean distance
    # With loss.name dsa, dsa.weight_f, weight_z and weight_t replace these two.
    cfg.loss.triplet.weight_t = 1.0  # of the triplet losses
    cfg.loss.triplet.weight_x = 1.0  # of the cross entropies; torchreid's default is 0


def _test(cfg: Node) -> None:
    cfg.test = Node()
    cfg.test.batch_size = 100
    # Gallery images of the query's identity and camera: drop, as torchreid does, or keep (ours).
    cfg.test.same_camera = "drop"
    cfg.test.dist_metric = "euclidean"  # euclidean (squared, as in torchreid) or cosine
    cfg.test.normalize_feature = False  # L2-normalise; Euclidean then ranks as cosine does
    cfg.test.ranks = [1, 5, 10, 20]  # ranks of the CMC to print
    cfg.test.evaluate = False  # test only
    cfg.test.eval_freq = -1  # epochs between tests during training; -1: only at the end
    cfg.test.start_eval = 0  # no test during training before this many epochs
    cfg.test.rerank = False  # add k-reciprocal re-ranking to the last test
    cfg.test.rerank_during_training = False  # re-rank in every test (ours)
    cfg.test.rerank_k1 = 20  # k1: size of the k-reciprocal neighbourhoods (ours)
    cfg.test.rerank_k2 = 6  # k2: neighbours averaged in local query expansion (ours)
    cfg.test.rerank_lambda = 0.3  # weight of the original distance, 0..1 (ours)
    # Input distances of re-ranking: torchreid (fourth power of the Euclidean distance), or paper
    # (squared Euclidean, Zhong et al.) (ours).
    cfg.test.rerank_form = "torchreid"
    # Mixed precision in the last test, same values as amp; tests during training use amp (ours).
    cfg.test.amp = "off"
    # CSV of per-image conditions (a column "path" and any others; pid, camid and split of a list of
    # images are ignored) to group the results by; "": the data set's own conditions, if it has any,
    # as the rendered one does (ours).
    cfg.test.conditions = ""
    cfg.test.flip = False  # average the embeddings of image and mirror image (ours)
    # Folder in which the last test's embeddings are cached, so that repeating it takes seconds;
    # "" or none: no cache (ours).
    cfg.test.cache = ""
    cfg.test.visrank = False  # draw each query's ranking; needs test.evaluate True
    cfg.test.visrank_topk = 10  # gallery images per ranking


def _synthetic(cfg: Node) -> None:
    # The rendered pedestrians, -s synthetic (ours). If every key is None, the data set on disk is
    # used, or one is rendered with SyntheticOptions' defaults; if some keys are set, the others
    # have these defaults.
    cfg.synthetic = Node()
    cfg.synthetic.identities = None  # for training and testing together
    cfg.synthetic.train_identities = None  # for training, 2..identities − 2; None: half
    cfg.synthetic.cameras = None  # 2..6
    cfg.synthetic.images = None  # per identity and camera
    cfg.synthetic.twins = None  # share of identities with a near-twin, 0..1
    # How twins differ. any: in a random detail of their clothes; regions: everyone wears a band
    # around one of the 7 body regions, each equally often, and twins differ in its colour.
    cfg.synthetic.twin_details = None
    cfg.synthetic.occlusion = None  # share of occluded images, 0..1
    cfg.synthetic.height = None  # pixels
    cfg.synthetic.width = None  # pixels
    cfg.synthetic.seed = None


def _report(cfg: Node) -> None:
    cfg.report = Node()  # extra output of a run (ours)
    cfg.report.untrained = False  # also test before training, for comparison
    cfg.report.curves = False  # plot losses, learning rate and mAP
    cfg.report.rankings = 0  # draw the rankings of this many queries
    cfg.report.regions = 0  # draw the predicted regions of this many query images
    cfg.report.textures = 0  # draw photo, IUV and textures of this many training images
