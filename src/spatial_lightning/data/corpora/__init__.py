"""Published corpora: one reader a format, unmodified files in, records out."""

from spatial_lightning.data.corpora.blink import Blink
from spatial_lightning.data.corpora.chat import Chat
from spatial_lightning.data.corpora.choice_table import ChoiceTable
from spatial_lightning.data.corpora.clevr_questions import CLEVRQuestions
from spatial_lightning.data.corpora.cv_bench import CVBench
from spatial_lightning.data.corpora.emb_spatial import EmbSpatial
from spatial_lightning.data.corpora.fdpo_pairs import FDPOPairs
from spatial_lightning.data.corpora.gqa import GQA
from spatial_lightning.data.corpora.imageinwords import ImageInWords
from spatial_lightning.data.corpora.omni3d_bench import Omni3DBench
from spatial_lightning.data.corpora.open_spatial import OpenSpatial
from spatial_lightning.data.corpora.options import HiddenAnswerError
from spatial_lightning.data.corpora.pictures import Pictures
from spatial_lightning.data.corpora.preference_chat import PreferenceChat
from spatial_lightning.data.corpora.q_spatial import QSpatial
from spatial_lightning.data.corpora.question_rows import QuestionRows
from spatial_lightning.data.corpora.reader import CorpusReader
from spatial_lightning.data.corpora.rgpt_bench import RGPTBench
from spatial_lightning.data.corpora.sketchpad import Sketchpad
from spatial_lightning.data.corpora.spare import SpaRE
from spatial_lightning.data.corpora.three_dsr_bench import ThreeDSRBench
from spatial_lightning.data.corpora.tool_chat import ToolChat
from spatial_lightning.data.corpora.trace_folders import TraceFolders
from spatial_lightning.data.corpora.vqasynth import VQASynth
from spatial_lightning.data.corpora.vsr import VSR
from spatial_lightning.data.corpora.whatsup import WhatsUp

__all__ = [
    "GQA",
    "VSR",
    "Blink",
    "CLEVRQuestions",
    "CVBench",
    "Chat",
    "ChoiceTable",
    "CorpusReader",
    "EmbSpatial",
    "FDPOPairs",
    "HiddenAnswerError",
    "ImageInWords",
    "Omni3DBench",
    "OpenSpatial",
    "Pictures",
    "PreferenceChat",
    "QSpatial",
    "QuestionRows",
    "RGPTBench",
    "Sketchpad",
    "SpaRE",
    "ThreeDSRBench",
    "ToolChat",
    "TraceFolders",
    "VQASynth",
    "WhatsUp",
]
