<<<<<<<< HEAD:ui/dist/assets/chunk-ON6OUSD3.js
import{g as m}from"/assets/chunk-UH7PW7EE.js";var a=["system","light","dark"],o="ovgate.theme";function n(){let e=localStorage.getItem(o);return a.find(s=>s===e)??"system"}var t=m(n());function c(e){t.value=e,localStorage.setItem(o,e),l()}function l(){t.value==="system"?delete document.documentElement.dataset.theme:document.documentElement.dataset.theme=t.value}export{a,t as b,c,l as d};
========
import{g as m}from"/assets/chunk-SAQF6HHU.js";var a=["system","light","dark"],o="ovgate.theme";function n(){let e=localStorage.getItem(o);return a.find(s=>s===e)??"system"}var t=m(n());function c(e){t.value=e,localStorage.setItem(o,e),l()}function l(){t.value==="system"?delete document.documentElement.dataset.theme:document.documentElement.dataset.theme=t.value}export{a,t as b,c,l as d};
>>>>>>>> 058f72c (Document backup and restore of the metadata; back up from the console):ui/dist/assets/chunk-GB6XGUWF.js
