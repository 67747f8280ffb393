"""Review a scheduled campaign before its clearance: read its customers, ask about them, report who is approved."""

from .campaign_review import AsyncCampaignReview, CampaignReview
from .per_customer import per_customer

__all__ = ["AsyncCampaignReview", "CampaignReview", "per_customer"]
