<<<<<<<< HEAD:ui/dist/assets/chunk-BC43KVNX.js
import{a as r}from"/assets/chunk-C4BRCL3D.js";import{ea as e}from"/assets/chunk-VAJRTB7U.js";function u({name:n,value:t,onValue:o,rows:i=3,...l}){return e(r,{...l,children:a=>e("textarea",{...a,name:n,rows:i,spellcheck:!1,value:t,onInput:p=>o(p.currentTarget.value)})})}export{u as a};
========
import{a as r}from"/assets/chunk-BTZEHXXF.js";import{ca as e}from"/assets/chunk-NRSPCDXW.js";function u({name:n,value:t,onValue:o,rows:i=3,...l}){return e(r,{...l,children:a=>e("textarea",{...a,name:n,rows:i,spellcheck:!1,value:t,onInput:p=>o(p.currentTarget.value)})})}export{u as a};
>>>>>>>> 7b760e9 (Accounts: groups of users and roles on vPools and backends, enforced per object):ui/dist/assets/chunk-NT5KZHPG.js
